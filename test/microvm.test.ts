import assert from 'node:assert/strict'
import { copyFileSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { release } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { HostInfo } from '#spec/host-api.ts'
import type { Machine } from '#spec/machine.ts'
import { readTextFile } from '#sys/files.ts'
import { signalProcess } from '#sys/process.ts'
import { eventually } from '#sys/test-support.ts'
import { walkInShell } from './support/terminal.ts'
import { startTestCloud, type TestCloud } from './support/test-cloud.ts'

/** A cloud whose machines are VMs, played by a program where no guest boots by KVM: one walk through the life of one. */

let cloud: TestCloud
let folder: string
const slow = { timeout: 300_000 }
const bootMs = 120_000

/** Says which kernel it runs on, since when, and how often it was asked; what it says of a secret and of its size too. */
const where = `#!/bin/busybox sh
B=/bin/busybox
$B echo x >> /data/visits
printf 'Content-Type: text/plain\\r\\n\\r\\n'
$B echo "kernel=$($B uname -r)"
$B echo "boot=$($B cat /proc/sys/kernel/random/boot_id)"
$B echo "visits=$($B wc -l < /data/visits)"
$B echo "secret=$GREETING"
$B echo "cpus=$($B grep -c ^processor /proc/cpuinfo)"
$B echo "memory_kb=$($B awk '/^MemTotal/ { print $2 }' /proc/meminfo)"
`

const dockerfile = `FROM scratch
COPY busybox /bin/busybox
COPY www /www
ENTRYPOINT ["/bin/busybox"]
CMD ["sh", "-c", "echo listening; exec /bin/busybox httpd -f -p 8080 -h /www"]
`

const flyToml = `app = "micro"
primary_region = "ord"
[http_service]
internal_port = 8080
auto_stop_machines = "suspend"
[mounts]
source = "data"
destination = "/data"
[[vm]]
size = "shared-cpu-1x"
memory = "256mb"
`

type Seen = Record<'kernel' | 'boot' | 'visits' | 'secret' | 'cpus' | 'memory_kb', string>

async function ask(): Promise<Seen> {
  const { status, body } = await cloud.get('micro', '/cgi-bin/where')
  assert.equal(status, 200, body)
  return Object.fromEntries(
    body
      .trim()
      .split('\n')
      .map((line) => line.split('=')),
  ) as Seen
}

async function machine(app = 'micro'): Promise<Machine> {
  const list = JSON.parse(await cloud.ok(['m', 'list', '-a', app, '--json'])) as Machine[]
  return list[0] as Machine
}

/** Nobody asks for anything: the edge puts it to sleep. */
const asleep = () =>
  eventually('it is suspended', async () => (await machine()).state === 'suspended', bootMs)

const hostMemoryUsed = async (): Promise<number> => {
  const status = JSON.parse(await cloud.ok(['status', '--json'])) as { hosts: HostInfo[] }
  return status.hosts[0]?.used.memory_mb ?? -1
}

before(async () => {
  cloud = await startTestCloud({
    name: 'microvm',
    images: ['busybox'],
    autostopIntervalMs: 1_500,
    upArgs: ['--runtime', 'qemu'],
  })
  folder = join(cloud.home, 'apps', 'micro')
  mkdirSync(join(folder, 'www/cgi-bin'), { recursive: true })
  copyFileSync('/bin/busybox', join(folder, 'busybox'))
  writeFileSync(join(folder, 'www/cgi-bin/where'), where, { mode: 0o755 })
  writeFileSync(join(folder, 'Dockerfile'), dockerfile)
  writeFileSync(join(folder, 'fly.toml'), flyToml)
}, slow)
after(async () => {
  await cloud?.destroy()
}, slow)

let first: Seen

test('an image answers from inside a VM with a kernel and a size of its own', slow, async () => {
  const launch = ['launch', '--copy-config', '--name', 'micro', '--now', '--yes', '--ha=false']
  await cloud.ok(launch, { cwd: folder })
  first = await ask()
  assert.notEqual(first.kernel, release())
  assert.equal(first.cpus, '1')
  const megabytes = Number(first.memory_kb) / 1024
  assert.ok(megabytes > 150 && megabytes <= 256, `${megabytes} MB`)
  const { runtime } = await machine()
  assert.deepEqual([runtime?.kind, runtime?.isolation], ['qemu', 'vm'])
  assert.match(await cloud.ok(['doctor']), /VMs by qemu/)
  assert.match(await cloud.ok(['status']), /qemu \(VMs, (kvm|tcg)\)/)
})

test(
  'idle it is suspended and gives its memory back; a request goes on where it was',
  slow,
  async () => {
    await asleep()
    await eventually('it gave its memory back', async () => (await hostMemoryUsed()) === 0)
    const seen = await ask()
    assert.equal(seen.boot, first.boot, 'the same boot')
    assert.equal(Number(seen.visits), Number(first.visits) + 1)
    const { events, id } = await machine()
    const resumed = events.find(({ status }) => status === 'started')
    assert.equal(resumed?.request?.['resumed'], true)
    assert.match(await cloud.ok(['m', 'status', id, '-a', 'micro']), /Runtime .*= qemu .*a VM/)
  },
)

/** What a program inside says; an idle machine may fall asleep at any moment until it runs. */
async function inside(command: string): Promise<string> {
  const { id } = await machine()
  return eventually(
    `it runs ${command}`,
    async () => {
      await cloud.hangar(['m', 'start', id, '-a', 'micro'])
      const { code, stdout } = await cloud.hangar(['m', 'exec', id, '-a', 'micro', command])
      return code === 0 && stdout
    },
    bootMs,
  )
}

test('a shell in a VM, which stays awake for as long', slow, async () => {
  const { id } = await machine()
  await walkInShell(cloud, { app: 'micro', machine: id, busybox: '/bin/busybox' })
})

test('exec, logs, a snapshot and an extension of its volume', slow, async () => {
  const { id, config } = await machine()
  const volume = config.mounts?.[0]?.volume ?? ''
  assert.match(await inside('/bin/busybox cat /data/visits'), /^x\nx\n$/)
  assert.match(await cloud.ok(['logs', '-a', 'micro', '--no-tail']), /listening/)
  await cloud.ok(['volumes', 'snapshots', 'create', volume, '-a', 'micro'])
  await eventually('the snapshot is there', async () =>
    /created/.test(await cloud.ok(['volumes', 'snapshots', 'list', volume, '-a', 'micro'])),
  )
  await cloud.ok(['volumes', 'extend', volume, '-s', '2', '-a', 'micro', '--yes'])
  const megabytes = async () =>
    Number(/\/dev\/\S+\s+(\d+)/.exec(await inside('/bin/busybox df -m /data'))?.[1])
  // Extended while it slept, it sees that after its next cold start.
  if ((await megabytes()) < 1_500) {
    await eventually('it restarts', async () => {
      await cloud.hangar(['m', 'start', id, '-a', 'micro'])
      return (await cloud.hangar(['m', 'restart', id, '-a', 'micro'])).code === 0
    })
  }
  assert.ok((await megabytes()) > 1_500)
})

test('a secret is a cold start with it; what its volume holds stays', slow, async () => {
  const before = await ask()
  await cloud.ok(['secrets', 'set', 'GREETING=hello', '-a', 'micro'])
  const seen = await ask()
  assert.equal(seen.secret, 'hello')
  assert.notEqual(seen.boot, before.boot)
  assert.equal(Number(seen.visits), Number(before.visits) + 1)
})

test('a host that is killed, or taken down, costs a sleeping VM nothing', slow, async () => {
  const before = await ask()
  await asleep()
  const victims = cloud.daemons('host')
  for (const victim of victims) signalProcess(victim, 'SIGKILL')
  await eventually('the host is back', async () =>
    cloud.daemons('host').some((now) => victims.every(({ pid }) => pid !== now.pid)),
  )
  assert.equal((await ask()).boot, before.boot)
  await asleep()
  await cloud.ok(['down'])
  await cloud.ok(['up'])
  assert.equal((await machine()).state, 'suspended')
  assert.equal((await ask()).boot, before.boot)
})

test(
  'a machine that asks for a container gets one beside it, and is told what that is',
  slow,
  async () => {
    await cloud.ok(['apps', 'create', 'box'])
    const run = ['m', 'run', 'busybox', 'sleep', '1000', '-a', 'box']
    await cloud.ok([...run, '--metadata', 'hangar_runtime=container'])
    const { id, runtime } = await machine('box')
    assert.equal(runtime?.isolation, 'container')
    assert.match(runtime?.note ?? '', /weaker wall/)
    assert.equal((await cloud.ok(['m', 'exec', id, '-a', 'box', 'uname -r'])).trim(), release())
    assert.match(await cloud.ok(['m', 'status', id, '-a', 'box']), /Runtime .*weaker wall/)
  },
)

test(
  'a VM whose records are lost while its host is dead goes down with its cloud',
  slow,
  async () => {
    const { id } = await machine()
    const vmms = () =>
      readdirSync('/proc').filter((pid) => {
        const groups = /^\d+$/.test(pid) ? readTextFile(`/proc/${pid}/cgroup`) : ''
        return groups?.includes(`-vm/${id}\n`) ?? false
      })
    const victims = [...cloud.daemons('cloud'), ...cloud.daemons('host')]
    assert.equal(victims.length, 2)
    // Nobody suspends one that was just asked.
    await ask()
    for (const victim of victims) signalProcess(victim, 'SIGKILL')
    assert.equal(vmms().length, 1)
    const hosts = join(cloud.home, 'hosts')
    for (const host of readdirSync(hosts)) {
      rmSync(join(hosts, host, 'vms/machines', id), { recursive: true, force: true })
    }
    assert.equal(vmms().length, 1, 'it runs on, and nothing of it is written down')
    await cloud.ok(['down'])
    assert.deepEqual(vmms(), [])
  },
)
