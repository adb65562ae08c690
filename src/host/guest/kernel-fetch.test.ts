import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { test } from 'node:test'
import { systemClock } from '#core/clock.ts'
import type { GuestKernel } from './index.ts'

const initPath = resolve(import.meta.dirname, '../../../build/guest/init')

/** A host process that wants the kernel: Debian's package, downloaded and unpacked. */
function wantKernel(dir: string, host: string) {
  const script = `
    import { guestKernel } from ${JSON.stringify(join(import.meta.dirname, 'kernel.ts'))}
    console.log(JSON.stringify(await guestKernel(JSON.parse(process.argv[1]))))
  `
  const options = { cacheDir: join(dir, 'cache'), initramfsDir: join(dir, host), initPath }
  const argv = ['--input-type=module', '-e', script, JSON.stringify(options)]
  const child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'inherit'] })
  let said = ''
  child.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()))
  const result = once(child, 'close').then(([code]) => ({ code: code as number | null, said }))
  return { child, result }
}

test('hosts that want the kernel at once get one, also when one of them is killed in the middle', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'hangar-kernel-'))
  t.after(() => rmSync(dir, { recursive: true, force: true, maxRetries: 5 }))
  const cacheDir = join(dir, 'cache')
  mkdirSync(cacheDir)
  const fetches = () => readdirSync(cacheDir).filter((name) => name.startsWith('fetch-'))
  const victim = wantKernel(dir, 'victim')
  while (!fetches().some((name) => readdirSync(join(cacheDir, name)).length > 0)) {
    assert.equal(victim.child.exitCode, null, 'it ended before it could be killed')
    await systemClock.sleep(2)
  }
  victim.child.kill('SIGKILL')
  await victim.result
  assert.ok(!readdirSync(cacheDir).includes('kernel'), 'what is half made counts for nothing')
  const others = [wantKernel(dir, 'one'), wantKernel(dir, 'two')]
  const all = Promise.all(others.map(({ result }) => result))
  const atWork = new Set<string>()
  while (!(await Promise.race([all.then(() => true), systemClock.sleep(5)]))) {
    for (const name of fetches()) atWork.add(name)
  }
  const results = await all
  assert.ok(atWork.size <= 2, `that of the dead one and one more: ${[...atWork].join()}`)
  const [first, second] = results.map(({ code, said }) => {
    assert.equal(code, 0)
    return JSON.parse(said) as GuestKernel
  })
  assert.ok(first && second)
  assert.deepEqual({ ...first, initramfsPath: '' }, { ...second, initramfsPath: '' })
  assert.deepEqual(readdirSync(cacheDir).toSorted(), ['fetch.lock', 'kernel'])
  assert.equal(readFileSync(first.elfPath).subarray(0, 4).toString('latin1'), '\x7fELF')
  const names = readdirSync(join(cacheDir, 'kernel/modules'))
  assert.ok(names.includes('virtio_blk.ko') && names.includes('overlay.ko'), names.join())
  for (const name of names) {
    const module = readFileSync(join(cacheDir, 'kernel/modules', name))
    assert.equal(module.subarray(0, 4).toString('latin1'), '\x7fELF', name)
  }
  const { initramfsPath } = first
  const digest = createHash('sha256').update(readFileSync(initramfsPath)).digest('hex')
  assert.equal(initramfsPath, join(dir, 'one', `initramfs-${digest.slice(0, 16)}.cpio`))
  // Who comes later finds it there, and has no use for what an earlier PID 1 booted from.
  writeFileSync(join(dir, 'one/initramfs-0123456789abcdef.cpio'), 'older')
  const { ino } = statSync(join(cacheDir, 'kernel'))
  assert.equal((await wantKernel(dir, 'one').result).code, 0)
  assert.equal(statSync(join(cacheDir, 'kernel')).ino, ino)
  assert.deepEqual(readdirSync(join(dir, 'one')), [basename(initramfsPath)])
})
