import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { after, test } from 'node:test'
import { systemClock } from '#core/clock.ts'
import { isFault } from '#core/fault.ts'
import { createLogger } from '#sys/log.ts'
import { run } from '#sys/process.ts'
import { eventually } from '#sys/test-support.ts'
import { mountPoints } from './mount-table.ts'
import { openVolumes, type Volumes } from './volumes.ts'

const log = createLogger('copies-test')
log.level = 'silent'
const homes: string[] = []
const never = new AbortController().signal
const gibibyte = 1024 ** 3

function openHome(dir = mkdtempSync(join(tmpdir(), 'hangar copies-'))) {
  if (!homes.includes(dir)) homes.push(dir)
  const open = () =>
    openVolumes({ dir: join(dir, 'volumes'), snapshotsDir: join(dir, 'snapshots'), log })
  return { dir, volumes: open(), open }
}

after(() => {
  for (const home of homes) {
    for (const point of mountPoints()) {
      if (!point.startsWith(home)) continue
      try {
        execFileSync('fsfreeze', ['-u', point], { stdio: 'ignore' })
      } catch {
        // It does not stand still: as it should be.
      }
      execFileSync('umount', ['-l', point])
    }
    rmSync(home, { recursive: true, force: true })
  }
})

const makeMounted = async (volumes: Volumes, id: string): Promise<string> => {
  await volumes.create({ id, sizeGb: 1, fstype: 'ext4' })
  return volumes.mount(id)
}

/** Appends numbered lines and flushes each; a gap or a torn line would show. */
function startWriter(path: string) {
  const script =
    'i=0; while :; do i=$((i+1)); echo "line $i" >> "$0/log"; echo $i > "$0/n"; sync "$0/log"; done'
  const child = spawn('bash', ['-c', script, path], { stdio: 'ignore' })
  const count = () => Number(readFileSync(join(path, 'n'), 'utf8') || 0)
  return {
    async wrote(more: number): Promise<void> {
      const before = existsSync(join(path, 'n')) ? count() : 0
      await eventually(
        'the writer goes on',
        () => existsSync(join(path, 'n')) && count() >= before + more,
      )
    },
    async stop(): Promise<void> {
      child.kill('SIGKILL')
      await once(child, 'exit')
    },
  }
}

function assertWhole(path: string): number {
  const lines = readFileSync(join(path, 'log'), 'utf8').trimEnd().split('\n')
  lines.forEach((line, at) => assert.equal(line, `line ${at + 1}`))
  return lines.length
}

function assertClean(disk: string): void {
  execFileSync('e2fsck', ['-f', '-n', disk], { stdio: 'ignore' })
}

const uuidOf = (disk: string): string =>
  /UUID:\s+(\S+)/.exec(execFileSync('tune2fs', ['-l', disk], { encoding: 'utf8' }))?.[1] ?? ''

const mayGrowMounted = (): boolean => {
  const bits = /CapEff:\s+(\w+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0'
  const sysResource = 24n
  return ((BigInt(`0x${bits}`) >> sysResource) & 1n) === 1n
}

test('VOL-2: a volume is extended under its writer, at once or from the next mount on', async () => {
  const { volumes } = openHome()
  const path = await makeMounted(volumes, 'vol_grow')
  const writer = startWriter(path)
  await writer.wrote(3)
  const grown = await volumes.extend({ id: 'vol_grow', sizeGb: 3 })
  assert.equal(grown, mayGrowMounted())
  const bytes = () => statfsSync(path).blocks * statfsSync(path).bsize
  if (grown) assert.ok(bytes() > 2.8 * gibibyte)
  await writer.wrote(3)
  await writer.stop()
  await volumes.unmount('vol_grow')
  await volumes.mount('vol_grow')
  assert.ok(bytes() > 2.8 * gibibyte, `${bytes()} bytes after the next mount`)
  assert.ok(assertWhole(path) >= 6)
  const usage = (await volumes.usage(['vol_grow', 'vol_other'])).get('vol_grow')
  assert.equal(usage?.bytes_total, bytes())
  assert.ok(usage && usage.bytes_used > 0 && usage.blocks_free > 0)
  await volumes.unmount('vol_grow')
  assert.equal((await volumes.usage(['vol_grow'])).size, 0)
  assert.equal(await volumes.extend({ id: 'vol_grow', sizeGb: 4 }), true)
  assertClean(volumes.imagePath('vol_grow'))
  await volumes.mount('vol_grow')
  assert.ok(bytes() > 3.8 * gibibyte)
})

test('a volume that another mount namespace still has is not written below it, and grows once it is let go', async () => {
  const { volumes } = openHome()
  const path = await makeMounted(volumes, 'vol_pin')
  writeFileSync(join(path, 'note'), 'kept')
  const keeper = spawn('unshare', ['-m', 'sh', '-c', 'echo; exec sleep 600'])
  await once(keeper.stdout, 'data')
  await volumes.unmount('vol_pin')
  await assert.rejects(
    volumes.extend({ id: 'vol_pin', sizeGb: 2 }),
    (error) => isFault(error, 'conflict') && /vol_pin is still in use/.test(error.message),
  )
  const mounting = volumes.mount('vol_pin')
  await systemClock.sleep(200)
  keeper.kill('SIGKILL')
  await mounting
  assert.ok(statfsSync(path).blocks * statfsSync(path).bsize > 1.8 * gibibyte)
  assert.equal(readFileSync(join(path, 'note'), 'utf8'), 'kept')
  await volumes.unmount('vol_pin')
  assertClean(await volumes.attach('vol_pin'))
})

test('VOL-2: killed at any step of an extension, the next one ends it with the data', async () => {
  const { dir, open } = openHome()
  let { volumes } = openHome(dir)
  const path = await makeMounted(volumes, 'vol_step')
  writeFileSync(join(path, 'note'), 'kept')
  await volumes.unmount('vol_step')
  const folder = join(dir, 'volumes/vol_step')
  const steps: (() => unknown)[] = [
    () => writeFileSync(join(folder, 'grow'), ''),
    () => execFileSync('truncate', ['-s', '2G', join(folder, 'disk.img')]),
    () => execFileSync('e2fsck', ['-fp', join(folder, 'disk.img')], { stdio: 'ignore' }),
    () => {
      execFileSync('e2fsck', ['-fp', join(folder, 'disk.img')], { stdio: 'ignore' })
      execFileSync('resize2fs', [join(folder, 'disk.img')], { stdio: 'ignore' })
    },
  ]
  for (const step of steps) {
    step()
    // Either the extension is repeated, or a machine starts first.
    volumes = open()
    await volumes.mount('vol_step')
    assert.equal(readFileSync(join(path, 'note'), 'utf8'), 'kept')
    await volumes.unmount('vol_step')
    writeFileSync(join(folder, 'grow'), '')
  }
  assert.equal(await open().extend({ id: 'vol_step', sizeGb: 2 }), true)
  assert.equal(existsSync(join(folder, 'grow')), false)
  assertClean(volumes.imagePath('vol_step'))
})

test('VOL-14: a snapshot under a writer is whole, restored larger it has a file system of its own', async () => {
  const { volumes } = openHome()
  const path = await makeMounted(volumes, 'vol_busy')
  const writer = startWriter(path)
  await writer.wrote(10)
  const taken = await volumes.snapshots.take({ id: 'vs_busy', volume: 'vol_busy' })
  assert.match(taken.digest, /^[0-9a-f]{64}$/)
  assert.ok(taken.bytes > 0 && taken.bytes < 0.2 * gibibyte, `${taken.bytes} bytes`)
  await writer.wrote(10)
  await writer.stop()
  assert.deepEqual(volumes.snapshots.list(), ['vs_busy'])
  const again = await volumes.snapshots.take({ id: 'vs_busy', volume: 'vol_busy' })
  assert.equal(again.digest, taken.digest)
  const from = { kind: 'snapshot', id: 'vs_busy' } as const
  await volumes.fillFrom({ id: 'vol_back', sizeGb: 2, from }, never)
  assertClean(volumes.imagePath('vol_back'))
  const back = await volumes.mount('vol_back')
  const lines = assertWhole(back)
  assert.ok(lines >= 10 && lines < assertWhole(path), 'it is of the moment of the snapshot')
  assert.ok(statfsSync(back).blocks * statfsSync(back).bsize > 1.8 * gibibyte)
  assert.notEqual(uuidOf(volumes.imagePath('vol_back')), uuidOf(volumes.imagePath('vol_busy')))
  const changedAt = await volumes.changedAt('vol_busy')
  assert.ok(changedAt && taken.changedAt && changedAt > taken.changedAt)
  await volumes.snapshots.remove('vs_busy')
  await volumes.snapshots.remove('vs_busy')
  assert.deepEqual(volumes.snapshots.list(), [])
})

test('VOL-14: what was not written since a snapshot counts as unchanged', async () => {
  const { volumes } = openHome()
  const path = await makeMounted(volumes, 'vol_quiet')
  writeFileSync(join(path, 'note'), 'kept')
  const { changedAt } = await volumes.snapshots.take({ id: 'vs_q', volume: 'vol_quiet' })
  await systemClock.sleep(50)
  assert.equal(await volumes.changedAt('vol_quiet'), changedAt)
  writeFileSync(join(path, 'note'), 'changed')
  execFileSync('sync', ['-f', path])
  assert.ok(((await volumes.changedAt('vol_quiet')) ?? 0) > (changedAt ?? 0))
})

test('VOL-13: a fork of a mounted volume, by a copy and by a stream; a stream cut short is refused', async () => {
  const { dir, volumes } = openHome()
  const path = await makeMounted(volumes, 'vol_src')
  writeFileSync(join(path, 'note'), 'kept')
  const from = { kind: 'volume', id: 'vol_src' } as const
  await volumes.fillFrom({ id: 'vol_fork', sizeGb: 1, from }, never)
  assert.equal(readFileSync(join(await volumes.mount('vol_fork'), 'note'), 'utf8'), 'kept')
  const { digest } = await volumes.snapshots.take({ id: 'vs_src', volume: 'vol_src' })
  const other = openHome().volumes
  const bytes = await volumes.snapshots.read('vs_src').toArray()
  const whole = Buffer.concat(bytes as Buffer[])
  assert.ok(whole.length < 0.1 * gibibyte, 'holes are not sent')
  const streamOf = (body: Readable) => ({
    kind: 'stream' as const,
    open: async () => ({ body, digest, bytes: 0 }),
  })
  const cuts = [
    Readable.from([whole.subarray(0, whole.length / 2)]),
    Readable.from([whole.subarray(0, whole.length - 20_000), Buffer.alloc(20_000, 1)]),
    new Readable({
      read() {
        this.destroy(new Error('the source died'))
      },
    }),
  ]
  for (const body of cuts) {
    const volume = { id: 'vol_far', sizeGb: 2, from: streamOf(body) }
    await assert.rejects(other.fillFrom(volume, never), (error) => isFault(error, 'native_failed'))
    assert.deepEqual(other.list(), [])
  }
  const endless = async () => ({ body: Readable.from([whole]), digest, bytes: 2 ** 50 })
  const huge = { id: 'vol_far', sizeGb: 2, from: { kind: 'stream', open: endless } } as const
  await assert.rejects(other.fillFrom(huge, never), (error) =>
    isFault(error, 'insufficient_capacity'),
  )
  assert.deepEqual(readdirSync(join(other.imagePath('vol_far'), '..')), ['mount'])
  await other.fillFrom({ id: 'vol_far', sizeGb: 2, from: streamOf(Readable.from([whole])) }, never)
  assertClean(other.imagePath('vol_far'))
  assert.equal(readFileSync(join(await other.mount('vol_far'), 'note'), 'utf8'), 'kept')
  assert.deepEqual(readdirSync(join(dir, 'snapshots')), ['vs_src'])
})

test('a mount does not wait for the copy of a disk at rest, and the copy is whole all the same', async () => {
  const { volumes } = openHome()
  const path = await makeMounted(volumes, 'vol_cold')
  execFileSync('dd', ['if=/dev/urandom', `of=${path}/data`, 'bs=1M', 'count=48'], {
    stdio: 'ignore',
  })
  await volumes.unmount('vol_cold')
  const takes = [1, 2].map((n) => volumes.snapshots.take({ id: `vs_c${n}`, volume: 'vol_cold' }))
  await systemClock.sleep(20)
  await volumes.mount('vol_cold')
  await Promise.all(takes)
  for (const n of [1, 2]) {
    const from = { kind: 'snapshot', id: `vs_c${n}` } as const
    await volumes.fillFrom({ id: `vol_c${n}`, sizeGb: 1, from }, never)
    const copy = await volumes.mount(`vol_c${n}`)
    execFileSync('cmp', [join(path, 'data'), join(copy, 'data')])
  }
})

test('a host that died while writers stood still lets them go on when it comes back', async () => {
  const { dir, volumes, open } = openHome()
  const path = await makeMounted(volumes, 'vol_ice')
  writeFileSync(join(dir, 'volumes/vol_ice/frozen'), '')
  execFileSync('fsfreeze', ['-f', path])
  const writer = run('bash', ['-c', 'echo on > "$0/note"', path])
  mkdirSync(join(dir, 'snapshots/vs_half'))
  writeFileSync(join(dir, 'snapshots/vs_half/disk.img.new'), 'half a copy')
  const next = open()
  assert.equal((await writer).code, 0)
  await next.mount('vol_ice')
  assert.equal(existsSync(join(dir, 'volumes/vol_ice/frozen')), false)
  assert.deepEqual(next.snapshots.list(), [])
  await next.snapshots.take({ id: 'vs_half', volume: 'vol_ice' })
  await next.fillFrom(
    { id: 'vol_warm', sizeGb: 1, from: { kind: 'snapshot', id: 'vs_half' } },
    never,
  )
  assert.equal(readFileSync(join(await next.mount('vol_warm'), 'note'), 'utf8'), 'on\n')
})

test('what a killed host left at work is waited for before a disk is touched', async () => {
  const { dir, volumes, open } = openHome()
  await volumes.create({ id: 'vol_lock', sizeGb: 1, fstype: 'ext4' })
  const began = performance.now()
  const held = [join(dir, 'volumes/vol_lock'), 'sh', '-c', 'echo; exec sleep 0.5']
  const left = spawn('flock', held, { stdio: ['ignore', 'pipe', 'ignore'] })
  await once(left.stdout, 'data')
  await open().mount('vol_lock')
  assert.ok(performance.now() - began > 450, 'it was mounted under a program that may write to it')
  if (left.exitCode === null) await once(left, 'exit')
})
