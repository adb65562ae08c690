import { copyFileSync, mkdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { guestKernel } from '#host/guest/index.ts'
import type { StartSpec } from '#host/runtime/driver.ts'
import { openQemuDriver } from '#host/runtime/index.ts'
import { makeUpper } from '#host/runtime/qemu/upper-disk.ts'
import { qemuArgs } from '#host/runtime/qemu/qemu-args.ts'
import { readVmRecord, vmFolder, vmFolders } from '#host/runtime/qemu/vm-folder.ts'
import { joinNetwork, leaveNetwork, readNetwork, tap } from '#host/runtime/qemu/vm-network.ts'
import { openWorkshop } from '#host/runtime/test-support.ts'
import { rootGbDefault } from '#spec/rootfs.ts'
import { createLogger } from '#sys/log.ts'
import { run, runOk } from '#sys/process.ts'
import { bareVm, untilListens, type BareParts } from './support/bare-vm.ts'
import { inTurns, median, option, timedMs } from './support/rounds.ts'

/**
 * VMs of our driver beside the bare QEMU with the same kernel, root and command line, whose disk and tap are there before
 * the clock runs: start until the application listens, resume, and memory beyond the guest's own.
 *
 *   node bench/vms.ts [--rounds 5]
 */
const rounds = option('rounds', 5)
const port = 8080
const memoryMb = 256
/** Before it is suspended, as one that is idle: what a guest does after its boot, it would do after its resume. */
const idleMs = 2_000
const [hostIp, guestIp] = ['198.18.79.1', '198.18.79.2']
const built = resolve(import.meta.dirname, '../build')
const kernelCacheDir = join(built, 'kernel')

const shop = await openWorkshop()
const far = `hgb${process.pid}`.slice(0, 15)
const netns = shop.netnsPath.split('/').at(-1) ?? ''
const log = createLogger('bench')
log.level = 'warn'
const dir = join(shop.dir, 'driver')
const driver = openQemuDriver({ dir, hostId: `bench-${process.pid}`, kernelCacheDir, log })

async function layNetwork(): Promise<void> {
  const ip = (words: string) => runOk('ip', words.split(' '))
  await ip(`link add ${far} type veth peer name eth0 netns ${netns}`)
  await ip(`address add ${hostIp}/32 dev ${far}`)
  await ip(`link set ${far} up`)
  await ip(`route add ${guestIp}/32 dev ${far}`)
  await ip(`-n ${netns} address add ${guestIp}/32 dev eth0`)
  await ip(`-n ${netns} link set eth0 up`)
  await ip(`-n ${netns} route add default via ${hostIp} dev eth0 onlink`)
}

async function networkHere() {
  const network = await readNetwork(shop.netnsPath)
  if (!network) throw new Error('the namespace has no link')
  // A question for the address of a guest that is not there yet would be asked again only after a second.
  const neighbour = ['neigh', 'replace', guestIp, 'lladdr', network.mac, 'dev', far]
  await runOk('ip', [...neighbour, 'nud', 'permanent'])
  return network
}

/** Kilobytes in memory of a process: its guest's own, and everything else; of what is shared, its share. */
function memoryOf(pid: number): { guestKb: number; restKb: number } {
  const areas = readFileSync(`/proc/${pid}/smaps`, 'utf8').split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)
  let [guestKb, restKb] = [0, 0]
  for (const area of areas) {
    const kb = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(area)?.[1])
    if (kb('Size') === memoryMb * 1024) guestKb += kb('Rss')
    else restKb += kb('Pss') || 0
  }
  return { guestKb, restKb }
}

const row = (...cells: string[]) => console.log(`| ${cells.join(' | ')} |`)
const ms = (value: number) => `${value.toFixed(0)} ms`
const spread = (samples: number[]) => `${ms(Math.min(...samples))} to ${ms(Math.max(...samples))}`
const verdict = (met: boolean) => (met ? 'met' : 'MISSED')

async function bench(): Promise<void> {
  const probe = await driver.probe()
  if (!probe.ok) throw new Error(probe.note)
  console.log(probe.note)
  await layNetwork()
  const network = await networkHere()
  const initPath = join(built, 'guest/init')
  const kernel = await guestKernel({ cacheDir: kernelCacheDir, initramfsDir: shop.dir, initPath })
  const tscKhz = Number(await runOk(initPath, ['--tsc-khz']))
  const spec: StartSpec = shop.spec(['httpd', '-f', '-p', String(port), '-h', '/etc'], {
    limits: { cpus: 1, cpuKind: 'performance', memoryMb },
  })
  const shape = { accel: probe.accel ?? 'tcg', cpus: 1, memoryMb, tscKhz, disks: true, volumes: 0 }
  const bare: BareParts = {
    dir: join(shop.dir, 'bare'),
    netnsPath: spec.netnsPath,
    args: qemuArgs({ ...shape, nic: { tap, mac: network.mac } }),
    kernelPath: kernel.elfPath,
    initramfsPath: kernel.initramfsPath,
    squashfsPath: spec.squashfsPath,
    upperPath: join(shop.dir, 'bare-upper.img'),
  }
  const templates = join(shop.dir, 'templates')
  mkdirSync(templates)
  const at = vmFolder(vmFolders(dir), spec.id)
  const memoryCopy = join(shop.dir, 'bare-memory')
  const memories: { guestKb: number; restKb: number }[] = []
  const bareOnce = async (parts: BareParts, begin: (vm: ReturnType<typeof bareVm>) => unknown) => {
    let vm: ReturnType<typeof bareVm> | undefined
    try {
      return await timedMs(async () => {
        vm = bareVm(parts)
        await begin(vm)
        await untilListens(guestIp, port)
      })
    } finally {
      await vm?.kill()
    }
  }
  const results = await inTurns(rounds, {
    bare: async () => {
      await makeUpper(bare.upperPath, { templates, sizeMb: rootGbDefault * 1024, keep: false })
      await joinNetwork(spec.netnsPath, network, 0)
      try {
        return await bareOnce(bare, (vm) => vm.run(spec, network))
      } finally {
        await leaveNetwork(spec.netnsPath)
      }
    },
    start: () =>
      timedMs(async () => {
        await driver.start(spec)
        await untilListens(guestIp, port)
      }),
    suspend: async () => {
      await sleep(idleMs)
      memories.push(memoryOf(readVmRecord(at)?.vmm?.pid ?? 0))
      const took = await timedMs(() => driver.suspend(spec.id))
      copyFileSync(at.memoryFile, memoryCopy)
      await runOk('cp', ['--sparse=always', at.upper, bare.upperPath])
      return took
    },
    // By the tap of the suspended VM, which finds it again.
    incoming: () => bareOnce({ ...bare, memoryPath: memoryCopy }, (vm) => vm.goOn()),
    resume: async () => {
      const took = await timedMs(async () => {
        await driver.resume(spec.id)
        await untilListens(guestIp, port)
      })
      await driver.destroy(spec.id)
      return took
    },
  })
  report(results, memories)
}

function report(
  results: Record<string, number[]>,
  memories: { guestKb: number; restKb: number }[],
): void {
  const of = (name: string) => results[name] ?? []
  const [bare, start] = [median(of('bare')), median(of('start'))]
  const [incoming, resume] = [median(of('incoming')), median(of('resume'))]
  console.log(`\n### VM, busybox httpd, ${memoryMb} MB, until it listens, median of ${rounds}\n`)
  row('what', 'median', 'spread', 'Hangar is', 'aim')
  row('---', '---', '---', '---', '---')
  row('bare QEMU: start', ms(bare), spread(of('bare')), '', '')
  const ratio = start / bare
  const times = `${ratio.toFixed(2)} × its time`
  row('Hangar: start', ms(start), spread(of('start')), times, `≤ 1.1 ×: ${verdict(ratio <= 1.1)}`)
  row('bare QEMU: -incoming', ms(incoming), spread(of('incoming')), '', '')
  const above = resume - incoming
  const more = `${ms(above)} above, ${(start / resume).toFixed(1)} × faster than its start`
  row('Hangar: resume', ms(resume), spread(of('resume')), more, `≤ 30 ms: ${verdict(above <= 30)}`)
  row('Hangar: suspend', ms(median(of('suspend'))), spread(of('suspend')), '', '')
  const mb = (kb: number[]) => `${(median(kb) / 1024).toFixed(0)} MB`
  const guest = mb(memories.map(({ guestKb }) => guestKb))
  const rest = mb(memories.map(({ restKb }) => restKb))
  console.log(`\nMemory of a VMM: ${rest} beyond its guest's own, of which ${guest} was touched.`)
}

try {
  await bench()
} finally {
  for (const id of await driver.list()) await driver.destroy(id)
  driver.close()
  await run('ip', ['link', 'delete', far])
  await shop.close()
}
process.exit(0)
