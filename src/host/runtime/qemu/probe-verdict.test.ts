import assert from 'node:assert/strict'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join, resolve } from 'node:path'
import { test } from 'node:test'
import { runOk } from '#sys/process.ts'
import { circumstances, readVerdict, verdictKey, type Circumstances } from './probe-verdict.ts'
import { architecture } from './qemu-args.ts'
import { probeVm } from './qemu-probe.ts'
import { kernelCacheDir } from './test-support.ts'

test('a verdict holds for the circumstances it was found in, and for no others', () => {
  const now: Circumstances = circumstances({
    version: 'QEMU 7.2',
    kernelDigest: 'ab',
    tried: [{ accel: 'tcg', args: ['-m', '128'] }],
  })
  const others: Partial<Circumstances>[] = [
    { version: 'QEMU 7.3' },
    { kernelDigest: 'ac' },
    { tried: [{ accel: 'kvm', args: ['-m', '128'] }] },
    { tried: [{ accel: 'tcg', args: ['-m', '129'] }] },
    { tried: [...now.tried, ...now.tried] },
    { hostKernel: '1.2.3' },
    { bootId: 'another' },
    { processor: 'another' },
    { kvmOpens: !now.kvmOpens },
  ]
  assert.deepEqual(
    new Set(others.flatMap((other) => Object.keys(other))),
    new Set(Object.keys(now)),
    'every circumstance is tried',
  )
  const keys = [now, ...others.map((other) => ({ ...now, ...other }))].map(verdictKey)
  assert.equal(new Set(keys).size, keys.length)
  assert.equal(verdictKey({ ...now }), keys[0])
})

test('a guest boots once, and again for another PID 1 or another QEMU', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'hangar-verdict-'))
  const path = process.env['PATH'] ?? ''
  t.after(async () => {
    process.env['PATH'] = path
    await rm(dir, { recursive: true, force: true })
  })
  const cache = join(dir, 'cache')
  mkdirSync(cache)
  symlinkSync(join(kernelCacheDir, 'kernel'), join(cache, 'kernel'))
  const options = { dir: join(dir, 'vms'), hostId: `verdict-${process.pid}`, kernelCacheDir: cache }
  const file = join(cache, 'probe.json')
  /** What was written when this probe booted a guest; undefined when it believed what was there. */
  const bootedBy = async (given: { initPath?: string } = {}) => {
    const before = readdirSync(cache).includes('probe.json') ? readFileSync(file, 'utf8') : ''
    const { found, note } = await probeVm({ ...options, accel: 'tcg', ...given })
    assert.ok(found, note)
    const after = readFileSync(file, 'utf8')
    return after === before ? undefined : after
  }
  const first = await bootedBy()
  assert.ok(first)
  assert.equal(await bootedBy(), undefined)

  const initPath = join(dir, 'init')
  const init = readFileSync(resolve(kernelCacheDir, '../guest/init'))
  writeFileSync(initPath, Buffer.concat([init, Buffer.from('newer')]), { mode: 0o755 })
  assert.ok(await bootedBy({ initPath }))
  assert.ok(await bootedBy(), 'the first again: only the last verdict is kept')

  const { program } = architecture()
  const real = (await runOk('sh', ['-c', `command -v ${program}`])).trim()
  const script = `#!/bin/sh\n[ "$1" = --version ] && exec echo "QEMU of tomorrow"\nexec ${real} "$@"\n`
  mkdirSync(join(dir, 'bin'))
  writeFileSync(join(dir, 'bin', program), script, { mode: 0o755 })
  process.env['PATH'] = join(dir, 'bin') + delimiter + path
  const newer = JSON.parse((await bootedBy()) ?? '{}') as { key?: string }
  assert.ok(newer.key)
  assert.ok(readVerdict(cache, newer.key))
  assert.equal(readVerdict(cache, 'another'), undefined)
  // Of a release that did not keep how fast the processor counts.
  assert.equal(typeof readVerdict(cache, newer.key)?.tscKhz, 'number')
  writeFileSync(file, JSON.stringify({ ...newer, tscKhz: undefined }))
  assert.equal(readVerdict(cache, newer.key), undefined)
  writeFileSync(file, JSON.stringify(newer))
  // What was cut short is no verdict.
  writeFileSync(file, readFileSync(file, 'utf8').slice(0, 20))
  assert.equal(readVerdict(cache, newer.key), undefined)
})
