import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { systemClock } from '#core/clock.ts'
import { isFault } from '#core/fault.ts'
import { createLogger } from '#sys/log.ts'
import { mountPoints } from './mount-table.ts'
import type { VolumeVms } from './vm-disks.ts'
import { openVolumes } from './volumes.ts'

const log = createLogger('vm-disks-test')
log.level = 'silent'
const homes: string[] = []

/** Volumes of which a VM has some; `calls` is what was asked of it. */
function openHome(answers: { grows?: 'grown' | 'at resume' | 'at start' } = {}) {
  const dir = mkdtempSync(join(tmpdir(), 'hangar vm disks-'))
  homes.push(dir)
  const calls: string[] = []
  let still = 0
  const vms: VolumeVms = {
    still: async (volume, action) => {
      calls.push(`still ${volume}`)
      still++
      try {
        return await action()
      } finally {
        still--
      }
    },
    grow: async (volume) => {
      calls.push(`grow ${volume}`)
      return answers.grows ?? 'grown'
    },
    usage: async () => ({ blocks: 100, bsize: 4096, bfree: 60, bavail: 60 }),
  }
  const open = () => openVolumes({ dir: join(dir, 'v'), snapshotsDir: join(dir, 's'), log, vms })
  return { dir, open, volumes: open(), calls, standing: () => still }
}

after(() => {
  for (const home of homes) {
    for (const point of mountPoints()) {
      if (point.startsWith(home)) execFileSync('umount', ['-l', point])
    }
    rmSync(home, { recursive: true, force: true })
  }
})

const sizeOfFileSystem = (disk: string): number => {
  const said = execFileSync('dumpe2fs', ['-h', disk], { stdio: ['ignore', 'pipe', 'ignore'] })
  const number = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(said.toString())?.[1])
  return number('Block count') * number('Block size')
}

/** As a guest may: two files that share a block, in a file system that calls itself clean and asks for a panic. */
function writeAsAttacker(home: string, disk: string): void {
  const file = join(home, 'file')
  writeFileSync(file, 'words')
  execFileSync('mkfs.ext4', ['-q', '-F', '-O', '^extent,^64bit', disk])
  const debugfs = (words: string) =>
    execFileSync('debugfs', ['-w', '-R', words, disk], { stdio: ['ignore', 'pipe', 'ignore'] })
  for (const name of ['a', 'b']) debugfs(`write "${file}" ${name}`)
  debugfs(`sif b block[0] ${debugfs('bmap a 0').toString().trim()}`)
  execFileSync('tune2fs', ['-e', 'panic', disk], { stdio: 'ignore' })
}

const mountOptions = (point: string): string =>
  execFileSync('findmnt', ['-no', 'OPTIONS', point]).toString()

/** The check of a disk that runs now; it is made to stand still. */
async function stoppedCheck(): Promise<number> {
  for (
    const end = performance.now() + 20_000;
    performance.now() < end;
    await systemClock.sleep(2)
  ) {
    for (const pid of readdirSync('/proc').map(Number)) {
      const words = pid ? wordsOf(pid) : []
      if (!words[0]?.endsWith('e2fsck') || words.at(-1) !== '/disk') continue
      process.kill(pid, 'SIGSTOP')
      return pid
    }
  }
  throw new Error('no check is seen')
}

function wordsOf(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1)
  } catch {
    return [] // It ended.
  }
}

const gibibyte = 1024 ** 3

test('a disk that a VM has is not mounted here, by the next process neither, until it is let go', async () => {
  const { volumes, open } = openHome()
  await volumes.create({ id: 'vol_a', sizeGb: 1, fstype: 'ext4' })
  const point = await volumes.mount('vol_a')
  writeFileSync(join(point, 'note'), 'kept')
  const disk = await volumes.attach('vol_a')
  assert.equal(disk, volumes.imagePath('vol_a'))
  assert.ok(![...mountPoints()].some((each) => each.startsWith(point)), 'unmounted first')
  assert.equal(await volumes.attach('vol_a'), disk)
  const next = open()
  await assert.rejects(next.mount('vol_a'), (error) => isFault(error, 'conflict'))
  await next.unmount('vol_a')
  assert.equal(readFileSync(join(await next.mount('vol_a'), 'note'), 'utf8'), 'kept')
  await next.unmount('vol_a')
})

test('VOL-14: a snapshot of a disk that a VM has is copied while the VM stands still', async () => {
  const { volumes, calls, standing } = openHome()
  await volumes.create({ id: 'vol_b', sizeGb: 1, fstype: 'ext4' })
  writeFileSync(join(await volumes.mount('vol_b'), 'note'), 'kept')
  await volumes.attach('vol_b')
  const before = statSync(volumes.imagePath('vol_b')).mtimeMs
  const { changedAt } = await volumes.snapshots.take({ id: 'vs_1', volume: 'vol_b' })
  assert.deepEqual([calls, standing(), changedAt], [['still vol_b'], 0, before])
  const from = { kind: 'snapshot', id: 'vs_1' } as const
  await volumes.fillFrom({ id: 'vol_c', sizeGb: 1, from }, new AbortController().signal)
  assert.equal(readFileSync(join(await volumes.mount('vol_c'), 'note'), 'utf8'), 'kept')
  await volumes.unmount('vol_c')
})

test('VOL-2: a disk that a VM has grows under its guest, or before its next start', async () => {
  const { volumes, calls } = openHome()
  await volumes.create({ id: 'vol_d', sizeGb: 1, fstype: 'ext4' })
  const disk = await volumes.attach('vol_d')
  assert.equal(await volumes.extend({ id: 'vol_d', sizeGb: 2 }), true)
  assert.deepEqual(calls, ['grow vol_d'])
  assert.equal(statSync(disk).size, 2 * gibibyte)
  assert.equal(sizeOfFileSystem(disk), gibibyte, 'only the guest may touch what it has mounted')
  const answers: Parameters<typeof openHome>[0] = { grows: 'at start' }
  const stubborn = openHome(answers)
  await stubborn.volumes.create({ id: 'vol_e', sizeGb: 1, fstype: 'ext4' })
  await stubborn.volumes.attach('vol_e')
  assert.equal(await stubborn.volumes.extend({ id: 'vol_e', sizeGb: 2 }), false)
  await stubborn.volumes.unmount('vol_e')
  assert.equal(sizeOfFileSystem(await stubborn.volumes.attach('vol_e')), 2 * gibibyte)
  answers.grows = 'at resume'
  await stubborn.volumes.attach('vol_e')
  assert.equal(await stubborn.volumes.extend({ id: 'vol_e', sizeGb: 3 }), true)
  stubborn.calls.length = 0
  await stubborn.volumes.growOn('vol_e')
  answers.grows = 'grown'
  for (let again = 0; again < 2; again++) await stubborn.volumes.growOn('vol_e')
  assert.deepEqual(stubborn.calls, ['grow vol_e', 'grow vol_e'], 'until its VM has done it, once')
  await stubborn.volumes.destroy('vol_e')
  assert.equal(existsSync(stubborn.volumes.imagePath('vol_e')), false)
})

test('VOL-3: how full a disk is that a VM has is what its guest says', async () => {
  const { volumes } = openHome()
  await volumes.create({ id: 'vol_f', sizeGb: 1, fstype: 'ext4' })
  assert.equal((await volumes.usage(['vol_f'])).size, 0)
  await volumes.attach('vol_f')
  assert.deepEqual((await volumes.usage(['vol_f', 'vol_other'])).get('vol_f'), {
    blocks: 100,
    block_size: 4096,
    blocks_free: 60,
    blocks_avail: 60,
    bytes_used: 40 * 4096,
    bytes_total: 100 * 4096,
  })
})

test('a disk that was cut off is mended before a VM has it, and a clean one is not touched', async () => {
  const { volumes } = openHome()
  await volumes.create({ id: 'vol_k', sizeGb: 1, fstype: 'ext4' })
  const disk = volumes.imagePath('vol_k')
  const stateOf = () =>
    /^Filesystem state:\s+(.*)$/m.exec(
      execFileSync('dumpe2fs', ['-h', disk], { encoding: 'utf8' }),
    )?.[1]
  const { ctimeMs } = statSync(disk)
  await volumes.attach('vol_k')
  assert.equal(statSync(disk).ctimeMs, ctimeMs)
  for (const flaw of ['state 0', 'state 3', 'feature_incompat 0x22c6', 'error_count 1']) {
    execFileSync('debugfs', ['-w', '-R', `ssv ${flaw}`, disk], { stdio: 'ignore' })
    await volumes.unmount('vol_k')
    const before = statSync(disk).ctimeMs
    await volumes.attach('vol_k')
    assert.notEqual(statSync(disk).ctimeMs, before, flaw)
    assert.equal(stateOf(), 'clean', flaw)
  }
})

test('what a VM wrote is checked as a whole before the kernel mounts it here, and refused by name', async () => {
  const { dir, volumes, open } = openHome()
  await volumes.create({ id: 'vol_g', sizeGb: 1, fstype: 'ext4' })
  const point = await volumes.mount('vol_g')
  assert.match(mountOptions(point), /nosuid,nodev/)
  const disk = await volumes.attach('vol_g')
  writeAsAttacker(dir, disk)
  await volumes.unmount('vol_g')
  for (const each of [volumes, open()]) {
    await assert.rejects(
      each.mount('vol_g'),
      (error) =>
        isFault(error, 'native_failed') &&
        /volume vol_g is damaged: .*Multiply-claimed.*snapshots/.test(error.message),
    )
  }
  assert.equal(mountPoints().has(point), false)
  execFileSync('sh', ['-c', 'e2fsck -fy "$0"; [ $? -le 2 ]', disk], { stdio: 'ignore' })
  await volumes.mount('vol_g')
  assert.equal(readFileSync(join(point, 'a'), 'utf8'), 'words')
  assert.match(mountOptions(point), /errors=remount-ro/)
  await volumes.unmount('vol_g')
})

test('the program that reads what a VM wrote has no rights of ours, and a host that is killed leaves none', async () => {
  const { dir, volumes, open } = openHome()
  await volumes.create({ id: 'vol_h', sizeGb: 500, fstype: 'ext4' })
  await volumes.attach('vol_h')
  await volumes.unmount('vol_h')
  const script = `
    const { openVolumes } = await import(${JSON.stringify(join(import.meta.dirname, 'volumes.ts'))})
    const log = { info() {}, debug() {}, warn() {} }
    await openVolumes({ dir: '${join(dir, 'v')}', snapshotsDir: '${join(dir, 's')}', log }).mount('vol_h')`
  const host = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: 'ignore' })
  const ended = once(host, 'exit')
  const pid = await stoppedCheck()
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const namespaces = ['mnt', 'net', 'pid', 'ipc', 'uts']
  const ours = namespaces.filter(
    (name) => readlinkSync(`/proc/${pid}/ns/${name}`) === readlinkSync(`/proc/self/ns/${name}`),
  )
  const fds = readdirSync(`/proc/${pid}/fd`).map((fd) => `/proc/${pid}/fd/${fd}`)
  const disk = statSync(open().imagePath('vol_h')).ino
  const others = fds.filter((fd) => statSync(fd).ino !== disk).map((fd) => readlinkSync(fd))
  host.kill('SIGKILL')
  await ended
  const next = open().mount('vol_h')
  process.kill(pid, 'SIGCONT')
  assert.match(status, /^Uid:\t(19[45]\d{7})\t\1\t\1\t\1$/m)
  for (const set of ['Inh', 'Prm', 'Eff', 'Bnd', 'Amb'])
    assert.match(status, RegExp(`Cap${set}:\t0+$`, 'm'))
  assert.match(status, /^NoNewPrivs:\t1$/m)
  assert.match(status, /^Groups:\t ?$/m)
  assert.deepEqual(ours, [])
  assert.deepEqual(
    others.filter((file) => !/^(pipe:|socket:|\/dev\/null$)/.test(file)),
    [],
  )
  await next
  assert.deepEqual(wordsOf(pid), [])
  assert.equal(statSync(open().imagePath('vol_h')).uid, 0)
  await volumes.destroy('vol_h')
})
