import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { systemClock, type Clock } from '#core/clock.ts'
import { Fault, isFault, type FaultCode } from '#core/fault.ts'
import type { Snapshot, Volume, VolumeExtended } from '#spec/volume.ts'
import { createLogger } from '#sys/log.ts'
import { eventually } from '#sys/test-support.ts'
import { fakeDriver, fakeVms, type FakeDriver } from '#host/runtime/index.ts'
import { openVolumes } from '#host/volume/index.ts'
import { createTestMachine, openTestHost, type TestHost } from './testing.ts'
import { upkeep } from './upkeep.ts'
import { volumeVms } from './volume-vms.ts'

/** Hosts over real disks; only the machines on them are fakes. */

const log = createLogger('volumes-test')
log.level = 'silent'
const app = { id: 'app_1', name: 'web', org: 'personal', network: 3 }
const hourMs = 3_600_000
const fault = (code: FaultCode, words = /./) => ({
  check: (error: unknown) => isFault(error, code) && words.test(error.message),
})

async function openDiskHost(t: TestContext, vms?: FakeDriver): Promise<TestHost> {
  const dir = mkdtempSync(join(tmpdir(), 'hangar-disks-'))
  t.after(() => {
    for (const line of readFileSync('/proc/self/mounts', 'utf8').split('\n')) {
      const point = line.split(' ')[1]
      if (point?.startsWith(dir)) execFileSync('umount', ['-l', point])
    }
    rmSync(dir, { recursive: true, force: true })
  })
  const host: TestHost = await openTestHost(t, {
    dir,
    driver: fakeDriver(),
    ...(vms ? { vms } : {}),
    openVolumes: () =>
      openVolumes({
        dir: join(dir, 'volumes'),
        snapshotsDir: join(dir, 'snapshots'),
        log,
        vms: volumeVms(() => host.agent),
      }),
  })
  host.agent.host.api = host.url
  return host
}

const mountOf = (host: TestHost, id: string) => host.agent.volumes.mount(id)

async function makeVolume(host: TestHost, id: string, input: object = {}): Promise<Volume> {
  const body = { id, app, input: { name: 'data', size_gb: 1, ...input } }
  return host.call<Volume>('POST', '/v1/volumes', body)
}

/** A volume with a note in it. */
async function makeNoted(host: TestHost, id: string, words = 'kept'): Promise<string> {
  await makeVolume(host, id)
  const path = await mountOf(host, id)
  writeFileSync(join(path, 'note'), words)
  return path
}

const noteOf = async (host: TestHost, id: string) =>
  readFileSync(join(await mountOf(host, id), 'note'), 'utf8')

/** Asks until it is so: what goes on behind an answer. */
async function until<T>(look: () => Promise<T>, so: (now: T) => boolean): Promise<T> {
  let last: T | undefined
  const found = await eventually(
    () => `it is still ${JSON.stringify(last)}`,
    async () => so((last = await look())) && { last },
  )
  return found.last
}

const untilCreated = (host: TestHost, id: string) =>
  until(
    () => host.call<Volume>('GET', `/v1/volumes/${id}`),
    ({ state }) => state === 'created',
  )

async function takeSnapshot(host: TestHost, volume: string, id: string): Promise<Snapshot> {
  const asked = await host.call<Snapshot>('POST', `/v1/volumes/${volume}/snapshots`, { id })
  assert.ok(['waiting', 'running'].includes(asked.status), asked.status)
  return until(
    () => host.call<Snapshot>('GET', `/v1/snapshots/${id}`),
    ({ status }) => status === 'created' || status === 'failed',
  )
}

const sourceOf = (host: TestHost, kind: 'snapshot' | 'volume', id: string, size_gb = 1) => ({
  kind,
  id,
  host_api: host.url,
  size_gb,
})

const makeFrom = (host: TestHost, id: string, source: object, input: object = {}) =>
  host.call<Volume>('POST', '/v1/volumes', { id, app, input: { name: 'data', ...input }, source })

/** Lets the host's time pass at once. */
function shiftClock(host: TestHost): (ms: number) => void {
  let shift = 0
  const clock: Clock = { ...systemClock, now: () => systemClock.now() + shift }
  host.agent.clock = clock
  return (ms) => void (shift += ms)
}

test('VOL-2, VOL-17: extend is larger only, change keeps what is absent', async (t) => {
  const host = await openDiskHost(t)
  await makeNoted(host, 'vol_1')
  const shown = await host.call<Volume>('GET', '/v1/volumes/vol_1')
  assert.ok(shown.bytes_total && shown.bytes_total > 900_000_000 && shown.block_size === 4096)
  for (const size_gb of [1, 0, 501, 1.5, null]) {
    const asked = host.call('PUT', '/v1/volumes/vol_1/extend', { size_gb })
    await assert.rejects(asked, fault('invalid').check)
  }
  const { volume } = await host.call<VolumeExtended>('PUT', '/v1/volumes/vol_1/extend', {
    size_gb: 2,
  })
  assert.deepEqual([volume.size_gb, volume.state], [2, 'created'])
  const again = host.call('PUT', '/v1/volumes/vol_1/extend', { size_gb: 2 })
  await assert.rejects(again, fault('invalid', /has 2 GB/).check)
  await host.call('PUT', '/v1/volumes/vol_1', { snapshot_retention: 9 })
  const changed = await host.call<Volume>('PUT', '/v1/volumes/vol_1', {
    auto_backup_enabled: false,
  })
  assert.deepEqual([changed.snapshot_retention, changed.auto_backup_enabled], [9, false])
  const wrong = host.call('PUT', '/v1/volumes/vol_1', { snapshot_retention: 61 })
  await assert.rejects(wrong, fault('invalid').check)
  assert.equal(await noteOf(host, 'vol_1'), 'kept')
})

test('VOL-14, VOL-15: a snapshot outlives its volume; restored, it is as large as asked', async (t) => {
  const host = await openDiskHost(t)
  const path = await makeNoted(host, 'vol_1', 'before')
  const snapshot = await takeSnapshot(host, 'vol_1', 'vs_1')
  assert.deepEqual(
    [snapshot.status, snapshot.volume_id, snapshot.volume_size, snapshot.retention_days],
    ['created', 'vol_1', 2 ** 30, 5],
  )
  assert.ok(snapshot.size > 0 && /^[0-9a-f]{64}$/.test(snapshot.digest))
  const same = await host.call('POST', '/v1/volumes/vol_1/snapshots', { id: 'vs_1' })
  assert.deepEqual(same, snapshot)
  writeFileSync(join(path, 'note'), 'after')
  await host.call('DELETE', '/v1/volumes/vol_1')
  const late = host.call('POST', '/v1/volumes/vol_1/snapshots', { id: 'vs_2' })
  await assert.rejects(late, fault('precondition_failed', /pending_destroy/).check)
  const source = sourceOf(host, 'snapshot', 'vs_1')
  const small = makeFrom(host, 'vol_s', { ...source, size_gb: 2 }, { size_gb: 1 })
  await assert.rejects(small, fault('invalid', /at least as many/).check)
  const missing = makeFrom(host, 'vol_m', { ...source, id: 'vs_none' })
  await assert.rejects(missing, fault('not_found').check)
  assert.equal((await makeFrom(host, 'vol_2', source, { size_gb: 2 })).state, 'restoring')
  assert.equal((await untilCreated(host, 'vol_2')).size_gb, 2)
  assert.equal(await noteOf(host, 'vol_2'), 'before')
  assert.equal((await makeFrom(host, 'vol_2', source)).state, 'created')
  assert.deepEqual(
    (await host.call<Snapshot[]>('GET', '/v1/volumes/vol_1/snapshots')).map(({ id }) => id),
    ['vs_1'],
  )
  await host.call('DELETE', '/v1/snapshots/vs_1')
  await assert.rejects(host.call('GET', '/v1/snapshots/vs_1'), fault('not_found').check)
  await host.agent.background.idle()
  assert.deepEqual(host.agent.volumes.snapshots.list(), [])
})

test('VOL-13: forked and restored from another host, which may be away for a while', async (t) => {
  const [from, to] = [await openDiskHost(t), await openDiskHost(t)]
  await makeNoted(from, 'vol_1')
  await takeSnapshot(from, 'vol_1', 'vs_1')
  const away = { ...sourceOf(from, 'volume', 'vol_1'), host_api: 'http://127.0.0.1:9' }
  assert.equal((await makeFrom(to, 'vol_a', away)).state, 'hydrating')
  const why = await until(
    () => to.call<Volume>('GET', '/v1/volumes/vol_a'),
    ({ error }) => error !== undefined,
  )
  assert.match(why.error ?? '', /vol_1: .*ECONNREFUSED.*tried again/)
  const record = to.agent.store.volumes.get('vol_a')
  to.agent.store.volumes.save({ ...record, source: sourceOf(from, 'volume', 'vol_1') })
  assert.equal((await untilCreated(to, 'vol_a')).error, undefined)
  assert.equal(await noteOf(to, 'vol_a'), 'kept')
  await makeFrom(to, 'vol_b', sourceOf(from, 'snapshot', 'vs_1'))
  await untilCreated(to, 'vol_b')
  assert.equal(await noteOf(to, 'vol_b'), 'kept')
  const listed = await from.call<Snapshot[]>('GET', '/v1/volumes/vol_1/snapshots')
  assert.deepEqual(
    listed.map(({ id }) => id),
    ['vs_1'],
  )
  await Promise.all([from.agent.background.idle(), to.agent.background.idle()])
  assert.deepEqual(from.agent.volumes.snapshots.list(), ['vs_1'], 'the transfer is gone')
  await makeFrom(to, 'vol_c', sourceOf(from, 'snapshot', 'vs_none'))
  const never = await until(
    () => to.call<Volume>('GET', '/v1/volumes/vol_c'),
    ({ error }) => error !== undefined,
  )
  assert.match(never.error ?? '', /vs_none.*destroy it and make another/)
})

test('VOL-1: of many machines that want one volume at once, one gets it; it starts with no other', async (t) => {
  const host = await openDiskHost(t)
  await makeVolume(host, 'vol_1')
  await makeVolume(host, 'vol_2', { name: 'other' })
  const mounts = [{ volume: 'vol_1', path: '/data' }]
  const tries = await Promise.allSettled(
    [1, 2, 3, 4].map(() => createTestMachine(host, { mounts })),
  )
  const won = tries.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []))
  const lost = tries.flatMap((each) => (each.status === 'rejected' ? [each.reason] : []))
  assert.equal(won.length, 1)
  assert.ok(lost.every(fault('conflict', /a volume has one machine/).check), String(lost))
  const byName = [{ name: 'data', path: '/data' }]
  const none = createTestMachine(host, { mounts: byName })
  await assert.rejects(none, fault('invalid', /no free volume named data/).check)
  const neither = createTestMachine(host, { mounts: [{ path: '/data' }] })
  await assert.rejects(neither, fault('invalid', /names no volume/).check)
  const other = await createTestMachine(host, { mounts: [{ volume: 'vol_2', path: '/data' }] })
  const update = host.call('POST', `/v1/machines/${other.id}`, {
    input: { config: { image: 'busybox', mounts } },
  })
  await assert.rejects(update, fault('invalid', /volume/).check)
  await host.call('POST', `/v1/machines/${other.id}/stop`, {})
  await host.call('GET', `/v1/machines/${other.id}/wait?state=stopped&timeout=60`)
  const taken = host.agent.store.volumes.get('vol_2')
  const volume = { ...taken.volume, attached_machine_id: won[0]?.id ?? '' }
  host.agent.store.volumes.save({ ...taken, volume })
  await host.call('POST', `/v1/machines/${other.id}/start`)
  const failed = host.call('GET', `/v1/machines/${other.id}/wait?state=started&timeout=60`)
  await assert.rejects(failed, /vol_2 is attached to machine/)
})

test('VOL-12: a mount tells the name of its volume, also one that was named by its id only', async (t) => {
  const host = await openDiskHost(t)
  await makeVolume(host, 'vol_1')
  const mounts = [{ volume: 'vol_1', path: '/data', kept: true }]
  const whole = [{ ...mounts[0], name: 'data' }]
  const made = await createTestMachine(host, { mounts })
  assert.deepEqual(made.config.mounts, whole)
  const path = `/v1/machines/${made.id}`
  for (const sent of [mounts, [{ name: 'another', path: '/data', kept: true }]]) {
    const input = { config: { image: 'busybox', mounts: sent } }
    const updated = await host.call('POST', path, { input })
    assert.deepEqual(updated.config.mounts, whole)
    const version = `instance_id=${updated.instance_id}`
    await host.call('GET', `${path}/wait?state=started&timeout=60&${version}`)
    assert.deepEqual((await host.call('GET', path)).config.mounts, whole)
  }
})

test('a start waits for a volume that is being filled; one that cannot be fails it with the reason', async (t) => {
  const host = await openDiskHost(t)
  await makeNoted(host, 'vol_1')
  const source = sourceOf(host, 'volume', 'vol_1')
  await makeFrom(host, 'vol_2', source)
  await createTestMachine(host, { mounts: [{ volume: 'vol_2', path: '/data' }] })
  assert.equal(await noteOf(host, 'vol_2'), 'kept')
  await makeFrom(host, 'vol_3', { ...source, id: 'vol_none', host_api: 'http://127.0.0.1:9' })
  const record = host.agent.store.volumes.get('vol_3')
  host.agent.store.volumes.save({ ...record, source: { ...source, id: 'vol_none' } })
  const mounts = [{ volume: 'vol_3', path: '/data' }]
  await assert.rejects(
    createTestMachine(host, { mounts }),
    /vol_3 could not be filled.*vol_none is not on this host/,
  )
})

test('VOL-11: destroyed ones are there for a day, snapshots until their time; an app takes all at once', async (t) => {
  const host = await openDiskHost(t)
  const pass = shiftClock(host)
  await makeNoted(host, 'vol_1')
  await takeSnapshot(host, 'vol_1', 'vs_1')
  await host.call('PUT', '/v1/volumes/vol_1', { snapshot_retention: 30 })
  await host.agent.volumes.unmount('vol_1')
  await host.call('DELETE', '/v1/volumes/vol_1')
  pass(23 * hourMs)
  await upkeep(host.agent)
  assert.equal((await host.call<Volume[]>('GET', '/v1/volumes'))[0]?.state, 'pending_destroy')
  pass(2 * hourMs)
  await upkeep(host.agent)
  assert.deepEqual(await host.call('GET', '/v1/volumes'), [])
  assert.deepEqual(host.agent.volumes.list(), [])
  const list = () => host.call<Snapshot[]>('GET', '/v1/volumes/vol_1/snapshots')
  assert.equal((await list()).length, 1)
  pass(94 * hourMs)
  assert.equal((await list()).length, 1, 'retention of when it was taken: five days')
  pass(2 * hourMs)
  assert.equal((await list()).length, 0)
  await upkeep(host.agent)
  assert.deepEqual(host.agent.volumes.snapshots.list(), [])
  await assert.rejects(list(), fault('not_found').check)
  await makeNoted(host, 'vol_2')
  await takeSnapshot(host, 'vol_2', 'vs_2')
  await host.call('DELETE', '/v1/apps/app_1')
  await host.agent.background.idle()
  assert.deepEqual(await host.call('GET', '/v1/volumes'), [])
  assert.deepEqual([host.agent.volumes.list(), host.agent.volumes.snapshots.list()], [[], []])
})

test('VOL-11: the volume of a machine that is on its way out waits for it, and is refused when it stays', async (t) => {
  const host = await openDiskHost(t)
  await makeVolume(host, 'vol_1')
  const machine = await createTestMachine(host, { mounts: [{ volume: 'vol_1', path: '/data' }] })
  const refused = host.call('DELETE', '/v1/volumes/vol_1')
  await assert.rejects(refused, fault('precondition_failed', /destroy the machine first/).check)
  const [, gone] = await Promise.all([
    host.call('DELETE', `/v1/machines/${machine.id}?kill=true`),
    host.call<Volume>('DELETE', '/v1/volumes/vol_1'),
  ])
  assert.equal(gone.state, 'pending_destroy')
})

test('VOL-11: one volume goes at once with its snapshots, also when they are all that is left of it', async (t) => {
  const host = await openDiskHost(t)
  const pass = shiftClock(host)
  const now = (id: string) => host.call('DELETE', `/v1/volumes/${id}?now=true`)
  for (const id of ['vol_1', 'vol_2', 'vol_3']) {
    await makeNoted(host, id)
    await takeSnapshot(host, id, `vs_${id}`)
    await host.call('PUT', `/v1/volumes/${id}`, { auto_backup_enabled: false })
    await host.agent.volumes.unmount(id)
  }
  await host.call('DELETE', '/v1/volumes/vol_2')
  pass(25 * hourMs)
  await upkeep(host.agent)
  assert.equal((await host.call<Snapshot>('GET', '/v1/snapshots/vs_vol_2')).status, 'created')
  await now('vol_1')
  await now('vol_2')
  await host.agent.background.idle()
  assert.deepEqual(host.agent.volumes.list(), ['vol_3'])
  assert.deepEqual(host.agent.volumes.snapshots.list(), ['vs_vol_3'])
  for (const id of ['vol_1', 'vol_2', 'vol_never']) {
    await assert.rejects(now(id), fault('not_found').check)
  }
  await assert.rejects(makeNoted(host, 'vol_never'), fault('conflict').check, 'it came too late')
})

test('VOL-14: once a day, when something was written, unless it is switched off', async (t) => {
  const host = await openDiskHost(t)
  const pass = shiftClock(host)
  const path = await makeNoted(host, 'vol_1')
  await makeVolume(host, 'vol_off', { auto_backup_enabled: false })
  const daily = async (hours: number) => {
    pass(hours * hourMs)
    await upkeep(host.agent)
    await host.agent.background.idle()
    return (await host.call<Snapshot[]>('GET', '/v1/volumes/vol_1/snapshots')).length
  }
  assert.equal(await daily(23), 0)
  assert.equal(await daily(2), 1)
  assert.equal(await daily(25), 1, 'nothing was written since')
  writeFileSync(join(path, 'note'), 'changed')
  execFileSync('sync', ['-f', path])
  assert.equal(await daily(1), 2)
  writeFileSync(join(path, 'note'), 'changed again')
  execFileSync('sync', ['-f', path])
  assert.equal(await daily(23), 2)
  assert.deepEqual(await host.call('GET', '/v1/volumes/vol_off/snapshots'), [])
})

test('VOL-10: a volume that is nearly full grows up to its limit, or the machine is told why not', async (t) => {
  const host = await openDiskHost(t)
  const path = await makeNoted(host, 'vol_1')
  const grows = { extend_threshold_percent: 50, add_size_gb: 2, size_gb_limit: 2 }
  const mounts = [{ volume: 'vol_1', path: '/data', ...grows }]
  const { id } = await createTestMachine(host, { mounts })
  const grown = async () => {
    await upkeep(host.agent)
    return (await host.call<Volume>('GET', '/v1/volumes/vol_1')).size_gb
  }
  assert.equal(await grown(), 1)
  execFileSync('fallocate', ['-l', '600M', join(path, 'data')])
  const { volumes } = host.agent
  const retentionNow = async () =>
    (await host.call<Volume>('GET', '/v1/volumes/vol_1')).snapshot_retention
  host.agent.volumes = {
    ...volumes,
    freeBytes: async () => {
      await host.call('PUT', '/v1/volumes/vol_1', { snapshot_retention: 9 })
      return 1000
    },
  }
  assert.equal(await grown(), 1)
  assert.equal(await retentionNow(), 9, 'what was changed meanwhile stays')
  assert.equal(await grown(), 1)
  host.agent.volumes = volumes
  assert.equal(await grown(), 2)
  assert.equal(await grown(), 2, 'its limit')
  const { events } = await host.call('GET', `/v1/machines/${id}`)
  const told = events.filter(({ type }) => type === 'extend').map(({ status }) => status)
  assert.equal(told.length, 2, 'told once that it was skipped, once that it was done')
  assert.equal(told[1], 'skipped')
})

test('VOL-10: the volume of a VM grows by the word of its guest; of one that is suspended, when it goes on', async (t) => {
  let blocksUsed = 10
  const grown: number[] = []
  const vms: FakeDriver = Object.assign(fakeDriver(fakeVms), {
    usage: async (id: string) => {
      const [blocks, blocksFree] = [250_000, 250_000 - blocksUsed]
      if (vms.suspended(id)) return undefined
      return { blockBytes: 4096, blocks, blocksFree, blocksAvailable: blocksFree }
    },
    grow: async (id: string, source: string) => {
      if (vms.suspended(id)) return false
      grown.push(statSync(source).size / 1024 ** 3)
      return true
    },
  })
  const host = await openDiskHost(t, vms)
  await makeVolume(host, 'vol_1')
  const grows = { extend_threshold_percent: 50, add_size_gb: 1, size_gb_limit: 2 }
  const { id } = await createTestMachine(host, {
    mounts: [{ volume: 'vol_1', path: '/data', ...grows }],
  })
  const show = () => host.call<Volume>('GET', '/v1/volumes/vol_1')
  const settled = async () => {
    await upkeep(host.agent)
    return (await show()).size_gb
  }
  assert.equal((await show()).bytes_used, 10 * 4096)
  assert.equal(await settled(), 1)
  blocksUsed = 200_000
  assert.equal(await settled(), 2)
  assert.deepEqual(grown, [2])
  await host.call('POST', `/v1/machines/${id}/suspend`, {})
  await host.call('GET', `/v1/machines/${id}/wait?state=suspended&timeout=60`)
  assert.equal((await show()).bytes_used, undefined)
  const extended = await host.call<VolumeExtended>('PUT', '/v1/volumes/vol_1/extend', {
    size_gb: 3,
  })
  assert.deepEqual([extended.needs_restart, extended.volume.size_gb], [false, 3])
  assert.equal(await settled(), 3)
  assert.deepEqual(grown, [2], 'nobody is woken for it')
  await host.call('POST', `/v1/machines/${id}/start`, {})
  await host.call('GET', `/v1/machines/${id}/wait?state=started&timeout=60`)
  await host.agent.background.idle()
  assert.deepEqual(grown, [2, 3])
})

test('VOL-13: a source that cannot be copied in use is not stopped for it again and again', async (t) => {
  const [from, to] = [await openDiskHost(t), await openDiskHost(t)]
  await makeNoted(from, 'vol_1')
  const { volumes } = from.agent
  let takes = 0
  const take = async () => {
    takes++
    throw new Fault('precondition_failed', 'its writers would stand still for too long')
  }
  from.agent.volumes = { ...volumes, snapshots: { ...volumes.snapshots, take } }
  await makeFrom(to, 'vol_a', sourceOf(from, 'volume', 'vol_1'))
  const look = () => to.call<Volume>('GET', '/v1/volumes/vol_a')
  const { error } = await until(look, (now) => now.error !== undefined)
  assert.match(error ?? '', /stand still for too long; destroy it and make another/)
  await to.agent.background.idle()
  assert.equal(takes, 1)
})

/** The host dies before its n-th write or act on a disk; the next process must end what was promised. */
async function eachStep(
  t: TestContext,
  scenario: {
    act: (host: TestHost) => Promise<unknown>
    check: (host: TestHost, promised: boolean) => Promise<void>
  },
): Promise<void> {
  for (let n = 1; ; n++) {
    assert.ok(n < 20, 'it never ends')
    const host = await openDiskHost(t)
    await makeNoted(host, 'vol_1')
    const { agent } = host
    let steps = 0
    /** Dies before the n-th call of these. */
    const dying = <T extends object>(parts: T, names: readonly (keyof T)[]): T =>
      new Proxy(parts, {
        get(target, name) {
          const value: unknown = Reflect.get(target, name)
          if (typeof value !== 'function') return value
          const act = value.bind(target) as (...args: unknown[]) => unknown
          if (!names.includes(name as keyof T)) return act
          return (...args: unknown[]) => {
            if (++steps === n) host.crash()
            if (steps >= n) throw new Error('the process is dead')
            return act(...args)
          }
        },
      })
    const { volumes, store } = agent
    store.volumes = dying(store.volumes, ['save'])
    store.snapshots = dying(store.snapshots, ['save'])
    const snapshots = dying(volumes.snapshots, ['take'])
    agent.volumes = dying({ ...volumes, snapshots }, ['extend', 'fillFrom'])
    const promised = await scenario.act(host).then(
      () => true,
      () => false,
    )
    await agent.background.idle()
    const died = steps >= n
    const next = died ? await host.reopen() : host
    await next.agent.background.idle()
    await scenario.check(next, promised || !died)
    if (!died) return assert.ok(n > 3, `only ${n} steps`)
    next.crash()
  }
}

test('killed at each step: extend', (t) =>
  eachStep(t, {
    act: (host) => host.call('PUT', '/v1/volumes/vol_1/extend', { size_gb: 2 }),
    check: async (host, promised) => {
      const { state, size_gb } = host.agent.store.volumes.get('vol_1').volume
      assert.equal(state, 'created')
      if (promised) assert.equal(size_gb, 2)
      assert.equal(await noteOf(host, 'vol_1'), 'kept')
    },
  }))

test('killed at each step: snapshot', (t) =>
  eachStep(t, {
    act: (host) => host.call('POST', '/v1/volumes/vol_1/snapshots', { id: 'vs_1' }),
    check: async (host, promised) => {
      const snapshot = host.agent.store.snapshots.find('vs_1')?.snapshot
      if (promised) assert.equal(snapshot?.status, 'created')
      if (!snapshot) return
      assert.ok(existsSync(host.agent.volumes.snapshots.diskOf('vs_1')))
    },
  }))

test('killed at each step: fork', (t) =>
  eachStep(t, {
    act: (host) => makeFrom(host, 'vol_2', sourceOf(host, 'volume', 'vol_1')),
    check: async (host, promised) => {
      const state = host.agent.store.volumes.find('vol_2')?.volume.state
      if (promised) assert.equal(state, 'created')
      if (state) assert.equal(await noteOf(host, 'vol_2'), 'kept')
      const folder = host.agent.volumes.imagePath('vol_2').replace(/disk\.img$/, '')
      if (state) assert.deepEqual(readdirSync(folder).toSorted(), ['disk.img', 'mount'])
    },
  }))
