import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { findCgroups } from '#sys/cgroup.ts'
import { chooseRuntime } from '#host/runtime/container-probe.ts'
import type { Machine } from '#spec/machine.ts'
import type { Release } from '#spec/release.ts'
import { run, runOk } from '#sys/process.ts'
import { startTestCloud, type TestCloud } from '../test/support/test-cloud.ts'
import { bareContainer, untilAccepts } from './support/bare-container.ts'
import { inTurns, median, option, timedMs } from './support/rounds.ts'

/**
 * Machines of a whole cloud beside the bare steps that nobody can do without, and beside `docker run`: creation, cold
 * wake, resume, and a deploy that changes nothing. Medians of rounds in which all take turns.
 *
 *   node bench/machines.ts [--rounds 9]
 */
const rounds = option('rounds', 9)
const port = 8080
const server = ['/bin/busybox', 'httpd', '-f', '-p', String(port), '-h', '/etc']
const guest = { cpu_kind: 'shared', cpus: 1, memory_mb: 256 }

/** An image of its own for each part: one that sleeping machines use is mounted already. */
const images = { create: 'busybox', wake: 'alpine' } as const

async function api<T>(cloud: TestCloud, method: string, path: string, body?: unknown): Promise<T> {
  const answer = await cloud.api(method, path, body)
  if (answer.status >= 400) throw new Error(`${method} ${path}: ${answer.status} ${answer.body}`)
  return JSON.parse(answer.body || 'null') as T
}

async function until(cloud: TestCloud, app: string, id: string, state: string): Promise<void> {
  await api(cloud, 'GET', `/v1/apps/${app}/machines/${id}/wait?state=${state}&timeout=60`)
}

async function createdApp(cloud: TestCloud, name: string): Promise<void> {
  await api(cloud, 'POST', '/v1/apps', { app_name: name, org_slug: 'personal' })
}

function squashfsIn(home: string): string[] {
  return readdirSync(join(home, 'hosts')).flatMap((host) => {
    const dir = join(home, 'hosts', host, 'images')
    const files = readdirSync(dir, { recursive: true, encoding: 'utf8' })
    return files.filter((file) => file.endsWith('/root.squashfs')).map((file) => join(dir, file))
  })
}

/** Makes the rootfs of a squashfs an image of the cloud's own dockerd. */
async function importIntoDocker(docker: string[], squashfs: string, dir: string): Promise<void> {
  const root = join(dir, 'import')
  mkdirSync(root)
  await runOk('mount', ['-t', 'squashfs', '-o', 'loop,ro', squashfs, root])
  try {
    await runOk('tar', ['-C', root, '-cf', `${root}.tar`, '.'])
  } finally {
    await runOk('umount', [root])
  }
  await runOk('docker', [...docker, 'import', `${root}.tar`, 'bench'])
}

const row = (...cells: string[]) => console.log(`| ${cells.join(' | ')} |`)
const ms = (value: number) => `${value.toFixed(1)} ms`
const spread = (samples: number[]) => `${ms(Math.min(...samples))} to ${ms(Math.max(...samples))}`
const verdict = (met: boolean) => (met ? 'met' : 'MISSED')

async function benchCreate(cloud: TestCloud, runtime: string, dir: string): Promise<void> {
  const app = 'bench-create'
  const config = { image: images.create as string, guest, init: { exec: ['/bin/sleep', '100000'] } }
  await createdApp(cloud, app)
  const create = async (timed: boolean): Promise<number> => {
    let id = ''
    const took = await timedMs(async () => {
      const machine = await api<Machine>(cloud, 'POST', `/v1/apps/${app}/machines`, { config })
      id = machine.id
      // As a deploy does: a tag would be looked up at the registry each time.
      config.image = `${images.create}@${machine.image_ref.digest}`
      await until(cloud, app, id, 'started')
    })
    await api(cloud, 'DELETE', `/v1/apps/${app}/machines/${id}?force=true`)
    await until(cloud, app, id, 'destroyed')
    await sleep(timed ? 100 : 0)
    return took
  }
  await create(false) // Pulls the image.
  const [squashfsPath = ''] = squashfsIn(cloud.home)
  const docker = ['-H', `unix://${cloud.home}/run/docker.sock`]
  await importIntoDocker(docker, squashfsPath, dir)
  const argv = ['/bin/sleep', '100000']
  const bare = bareContainer({ dir: join(dir, 'create'), runtime, squashfsPath, argv })
  const results = await inTurns(rounds, {
    bare: async () => {
      const took = await timedMs(() => bare.start())
      await bare.remove()
      return took
    },
    hangar: () => create(true),
    docker: async () => {
      const args = [...docker, 'run', '-d', '--network', 'none', 'bench', ...argv]
      let id = ''
      const took = await timedMs(async () => (id = (await runOk('docker', args)).trim()))
      await run('docker', [...docker, 'rm', '-f', id])
      return took
    },
  })
  const [ours, least, theirs] = [results['hangar']!, results['bare']!, results['docker']!]
  const overBare = median(ours) / median(least)
  const underDocker = median(theirs) / median(ours)
  console.log(`\n### API create to started, image local, median of ${rounds}\n`)
  row('what', 'median', 'spread', 'Hangar is', 'aim')
  row('---', '---', '---', '---', '---')
  row('Hangar: POST machines, wait for started', ms(median(ours)), spread(ours), '', '')
  row(
    `bare script: mounts, namespace, ${runtime} create and start`,
    ms(median(least)),
    spread(least),
    `${overBare.toFixed(2)} × its time`,
    `≤ 1.3 ×: ${verdict(overBare <= 1.3)}`,
  )
  row(
    '`docker run -d --network none`',
    ms(median(theirs)),
    spread(theirs),
    `${underDocker.toFixed(2)} × faster`,
    `≥ 2.5 ×: ${verdict(underDocker >= 2.5)}`,
  )
}

/** From the connection to the first byte of a 200 through the edge. */
function firstByteMs(cloud: TestCloud, app: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const begun = performance.now()
    const socket = net.connect(cloud.ports.http, '127.0.0.1')
    socket.write(`GET /passwd HTTP/1.1\r\nHost: ${app}.hangar.localhost\r\n\r\n`)
    socket.once('error', reject)
    socket.once('close', () => reject(new Error('the edge closed the connection')))
    socket.once('data', (chunk: Buffer) => {
      const took = performance.now() - begun
      const text = chunk.toString('latin1')
      if (text.startsWith('HTTP/1.1 200 ')) resolve(took)
      else reject(new Error(text))
      socket.destroy()
    })
  })
}

async function benchWake(cloud: TestCloud, runtime: string, dir: string): Promise<void> {
  const app = 'bench-wake'
  await createdApp(cloud, app)
  const known = squashfsIn(cloud.home)
  const services = [
    { protocol: 'tcp', internal_port: port, ports: [{ port: 80, handlers: ['http'] }] },
  ]
  const config = { image: images.wake, guest, services, init: { exec: server } }
  const { id } = await api<Machine>(cloud, 'POST', `/v1/apps/${app}/machines`, { config })
  await until(cloud, app, id, 'started')
  const squashfsPath = squashfsIn(cloud.home).find((file) => !known.includes(file)) ?? ''
  const bare = bareContainer({ dir: join(dir, 'wake'), runtime, squashfsPath, argv: server })
  const asleep = async (verb: 'stop' | 'suspend', state: string): Promise<number> => {
    await api(cloud, 'POST', `/v1/apps/${app}/machines/${id}/${verb}`, {})
    await until(cloud, app, id, state)
    await sleep(300)
    return firstByteMs(cloud, app)
  }
  const results = await inTurns(rounds, {
    bare: async () => {
      const took = await timedMs(async () => {
        await bare.start()
        await untilAccepts(bare.ip4, port)
      })
      await bare.remove()
      return took
    },
    cold: () => asleep('stop', 'stopped'),
    suspended: () => asleep('suspend', 'suspended'),
    warm: () => firstByteMs(cloud, app),
  })
  const [least, cold] = [median(results['bare']!), median(results['cold']!)]
  const [suspended, warm] = [median(results['suspended']!), median(results['warm']!)]
  console.log(`\n### First byte through the edge, busybox httpd, median of ${rounds}\n`)
  row('what', 'median', 'spread', 'difference', 'aim')
  row('---', '---', '---', '---', '---')
  row('bare script until the port accepts', ms(least), spread(results['bare']!), '', '')
  row(
    'GET to a stopped machine',
    ms(cold),
    spread(results['cold']!),
    `${ms(cold - least)} above the bare start`,
    `≤ 20 ms: ${verdict(cold - least <= 20)}`,
  )
  row('GET to a running machine', ms(warm), spread(results['warm']!), '', '')
  row(
    'GET to a suspended machine',
    ms(suspended),
    spread(results['suspended']!),
    `${ms(suspended - warm)} above a running one`,
    `≤ 30 ms: ${verdict(suspended - warm <= 30)}`,
  )
}

async function benchDeploy(cloud: TestCloud, dir: string): Promise<void> {
  const app = 'bench-deploy'
  await createdApp(cloud, app)
  const folder = join(dir, 'deploy')
  mkdirSync(folder)
  const text = `app = "${app}"
primary_region = "ord"
[processes]
app = "${server.slice(1).join(' ')}"
[http_service]
processes = ["app"]
internal_port = ${port}
auto_stop_machines = "off"
`
  writeFileSync(join(folder, 'fly.toml'), text)
  const deploy = () => cloud.ok(['deploy', '--image', images.create, '--ha=false'], { cwd: folder })
  await deploy()
  const serverMs: number[] = []
  const { all = [] } = await inTurns(rounds, {
    all: async () => {
      const took = await timedMs(deploy)
      const { releases } = await api<{ releases: Release[] }>(
        cloud,
        'GET',
        `/api/v1/apps/${app}/releases`,
      )
      const { created_at = '', updated_at = '', status } = releases[0] ?? {}
      if (status !== 'complete') throw new Error(`the release is ${status}`)
      serverMs.push(Date.parse(updated_at) - Date.parse(created_at))
      return took
    },
  })
  console.log(`\n### Deploy with nothing changed, median of ${rounds}\n`)
  row('what', 'median', 'spread', 'aim')
  row('---', '---', '---', '---')
  const met = verdict(median(all) <= 3_000)
  row('`hangar deploy --image`, the CLI with all', ms(median(all)), spread(all), `≤ 3 s: ${met}`)
  row('of it the release in control', ms(median(serverMs)), spread(serverMs), '')
}

const cloud = await startTestCloud({ name: 'bench', images: Object.values(images) })
const dir = mkdtempSync('/tmp/hangar-bench-work-')
try {
  const probe = { cgroups: findCgroups(), cgroupParent: '/hangar-bench' }
  const { found: runtime, note } = await chooseRuntime(probe)
  if (!runtime) throw new Error(note)
  console.log(`OCI runtime: ${runtime}`)
  await benchCreate(cloud, runtime, dir)
  await benchWake(cloud, runtime, dir)
  await benchDeploy(cloud, dir)
} finally {
  await cloud.destroy()
  rmSync(cloud.home, { recursive: true, force: true })
  rmSync(dir, { recursive: true, force: true })
}
