import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  statfsSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { isFault } from '#core/fault.ts'
import { createLogger } from '#sys/log.ts'
import { mountPoints } from './mount-table.ts'
import { openVolumes } from './volumes.ts'

const log = createLogger('volume-test')
log.level = 'silent'
const homes: string[] = []

function openHome() {
  const dir = mkdtempSync(join(tmpdir(), 'hangar volume-'))
  homes.push(dir)
  return { dir, volumes: openVolumes({ dir, snapshotsDir: `${dir}.snapshots`, log }) }
}

after(() => {
  for (const home of homes) {
    for (const point of mountPoints()) {
      if (point.startsWith(home)) execFileSync('umount', ['-l', point])
    }
    rmSync(home, { recursive: true, force: true })
  }
})

test('data survive an unmount, and every verb may be repeated', async () => {
  const { dir, volumes } = openHome()
  await volumes.create({ id: 'vol_a', sizeGb: 1, fstype: 'ext4' })
  const path = await volumes.mount('vol_a')
  assert.equal(await volumes.mount('vol_a'), path)
  assert.deepEqual(readdirSync(path), ['lost+found'])
  assert.equal(statSync(path).uid, 0)
  writeFileSync(join(path, 'note'), 'kept')
  await volumes.create({ id: 'vol_a', sizeGb: 1, fstype: 'ext4' })
  await volumes.unmount('vol_a')
  await volumes.unmount('vol_a')
  assert.equal(existsSync(join(path, 'note')), false)
  await volumes.mount('vol_a')
  assert.equal(readFileSync(join(path, 'note'), 'utf8'), 'kept')
  assert.deepEqual(volumes.list(), ['vol_a'])
  await volumes.destroy('vol_a')
  await volumes.destroy('vol_a')
  assert.deepEqual(volumes.list(), [])
  assert.deepEqual(readdirSync(dir), [])
  await assert.rejects(volumes.mount('vol_a'), (error) => isFault(error, 'not_found'))
})

test('whoever comes after adopts what is mounted and finishes what was cut short', async () => {
  const { dir, volumes } = openHome()
  await volumes.create({ id: 'vol_b', sizeGb: 1, fstype: 'ext4' })
  const path = await volumes.mount('vol_b')
  writeFileSync(join(path, 'note'), 'kept')
  mkdirSync(join(dir, 'vol_old.gone'))
  mkdirSync(join(dir, 'vol_c'))
  writeFileSync(join(dir, 'vol_c/disk.img.new'), 'a file system that was never finished')
  const next = openVolumes({ dir, snapshotsDir: `${dir}.snapshots`, log })
  assert.equal(existsSync(join(dir, 'vol_old.gone')), false)
  assert.deepEqual(next.list(), ['vol_b'])
  assert.equal(await next.mount('vol_b'), path)
  assert.equal(readFileSync(join(path, 'note'), 'utf8'), 'kept')
  await next.create({ id: 'vol_c', sizeGb: 1, fstype: 'ext4' })
  assert.deepEqual(readdirSync(await next.mount('vol_c')), ['lost+found'])
  await next.destroy('vol_b')
  await next.destroy('vol_c')
  assert.equal(mountPoints().has(path), false)
})

test('many calls at once mount once; the largest volume takes next to no space', async () => {
  const { dir, volumes } = openHome()
  const volume = { id: 'vol_d', sizeGb: 500, fstype: 'ext4' } as const
  await Promise.all([1, 2, 3].map(() => volumes.create(volume)))
  const [path = ''] = await Promise.all([1, 2, 3].map(() => volumes.mount('vol_d')))
  const { bsize, bavail } = statfsSync(path)
  assert.ok(bsize * bavail > 480 * 1024 ** 3, `only ${bsize * bavail} bytes are free`)
  const mounted = readFileSync('/proc/self/mounts', 'utf8').split('\n')
  const escaped = path.replaceAll(' ', '\\040')
  assert.equal(mounted.filter((line) => line.split(' ')[1] === escaped).length, 1)
  assert.ok(statSync(join(dir, 'vol_d/disk.img')).blocks * 512 < 100 * 1024 ** 2)
  await volumes.destroy('vol_d')
})

test('a volume in use is not torn away', async () => {
  const { volumes } = openHome()
  await volumes.create({ id: 'vol_e', sizeGb: 1, fstype: 'ext4' })
  const path = await volumes.mount('vol_e')
  const before = process.cwd()
  process.chdir(path)
  try {
    await assert.rejects(
      volumes.destroy('vol_e'),
      (error) => isFault(error, 'conflict') && /stop what uses it/.test(error.message),
    )
  } finally {
    process.chdir(before)
  }
  await volumes.destroy('vol_e')
})

test('a damaged file system is repaired where that is safe, otherwise the Fault says how to look', async () => {
  const { dir, volumes } = openHome()
  await volumes.create({ id: 'vol_f', sizeGb: 1, fstype: 'ext4' })
  const disk = join(dir, 'vol_f/disk.img')
  execFileSync('dd', ['if=/dev/zero', `of=${disk}`, 'bs=4096', 'count=1', 'conv=notrunc,fsync'], {
    stdio: 'ignore',
  })
  const untouched = () => [statSync(disk).mtimeMs, statSync(disk).blocks]
  const before = untouched()
  const verbs = [
    () => volumes.mount('vol_f'),
    () => volumes.attach('vol_f'),
    () => volumes.extend({ id: 'vol_f', sizeGb: 1 }),
    () => volumes.mount('vol_f'),
  ]
  for (const verb of verbs) {
    await assert.rejects(verb, (error) => {
      assert.ok(isFault(error, 'native_failed'))
      assert.ok(!error.message.includes(dir) && String(error.cause).includes(`e2fsck -n ${disk}`))
      return /volume vol_f is damaged: .*snapshots/.test(error.message)
    })
  }
  assert.deepEqual(untouched(), before, 'nobody makes a new one over what is there')
  await assert.rejects(volumes.mount('../etc'), (error) => isFault(error, 'invalid'))
  await assert.rejects(
    volumes.create({ id: 'vol_g', sizeGb: 501, fstype: 'ext4' }),
    (error) => isFault(error, 'invalid') && /1 to 500/.test(error.message),
  )
  await volumes.destroy('vol_f')
})
