import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { MachineConfig } from '#spec/machine-config.ts'
import { checkConfig, haltFor } from './config-rules.ts'

test('MCH-35: the request, then the config, then SIGINT and 5 s; 0s in a request names none', () => {
  const config = { image: 'a', stop_config: { signal: 'SIGTERM', timeout: '20s' } } as const
  const rows = [
    [{ image: 'a' }, {}, 'SIGINT', 5_000],
    [{ image: 'a' }, { timeout: '0s' }, 'SIGINT', 5_000],
    [config, {}, 'SIGTERM', 20_000],
    [config, { timeout: '0s', signal: '' }, 'SIGTERM', 20_000],
    [config, { timeout: '7s', signal: 'SIGQUIT' }, 'SIGQUIT', 7_000],
    [config, { timeout: 3e9 }, 'SIGTERM', 3_000],
    [config, { timeout: '10h' }, 'SIGTERM', 300_000],
    [{ image: 'a', stop_config: { timeout: '0s' } }, {}, 'SIGINT', 0],
    [config, { signal: 'SIGKILL' }, 'SIGKILL', 0],
  ] as const
  for (const [machine, request, signal, timeoutMs] of rows) {
    assert.deepEqual(haltFor(machine, request), { signal, timeoutMs, drain: true })
  }
})

test('a file of blanks and no base64 is refused at once, however long', () => {
  const config = {
    image: 'a',
    files: [{ guest_path: '/f', raw_value: `${' '.repeat(1_000_000)}!` }],
  }
  const begun = performance.now()
  assert.throws(() => checkConfig(config), /not base64/)
  assert.ok(performance.now() - begun < 10_000)
  const good = [{ guest_path: '/f', raw_value: 'aGVs\nbG8=\n\n' }]
  assert.doesNotThrow(() => checkConfig({ image: 'a', files: good }))
})

test('a root of no size that a host could hold, and a runtime that is none, are refused', () => {
  const refused = [{ rootfs: { size_gb: -1 } }, { rootfs: { size_gb: 1e6 } }]
  for (const config of refused) {
    assert.throws(() => checkConfig({ image: 'a', ...config }), /rootfs\.size_gb must be 1 to 100/)
  }
  const metadata = { hangar_runtime: 'vm' }
  assert.throws(() => checkConfig({ image: 'a', metadata }), /it is auto, qemu, container/)
  checkConfig({ image: 'a', rootfs: { size_gb: 20 }, metadata: { hangar_runtime: 'qemu' } })
})

test('a file system is no larger than the disk that it is in', () => {
  const sized = (rootfs: NonNullable<MachineConfig['rootfs']>) =>
    checkConfig({ image: 'a', rootfs })
  sized({ size_gb: 4, fs_size_gb: 4 })
  sized({ fs_size_gb: 20 })
  assert.throws(
    () => sized({ size_gb: 4, fs_size_gb: 5 }),
    /fs_size_gb is 5.* more than rootfs.size_gb, 4/,
  )
  assert.throws(() => sized({ fs_size_gb: 101 }), /rootfs\.fs_size_gb must be 1 to 100/)
})

test('MCH-65: a root is kept by its name of today or that of before, and not by two that differ', () => {
  const checked = (older: string | null, newer: string | null) =>
    checkConfig({
      image: 'a',
      guest: { persist_rootfs: older as 'never' },
      rootfs: { persist: newer as 'never' },
    })
  for (const wish of ['never', 'restart', 'always', '', null]) {
    checked(wish, wish)
    checked(null, wish)
    checked(wish, '')
  }
  assert.throws(
    () => checked('always', 'never'),
    /rootfs.persist is "never" and guest.persist_rootfs, its older name, is "always"/,
  )
})
