import assert from 'node:assert/strict'
import { after, before, beforeEach, test } from 'node:test'
import { Fault, isFault, type FaultCode } from '#core/fault.ts'
import type { Volume } from '#spec/volume.ts'
import { createApp, describeApps, type AppRecord } from '../apps/index.ts'
import { deleteApp } from '../machines/index.ts'
import { ensureOrg } from '../orgs/index.ts'
import { thisRunner } from '../runner.ts'
import { startTestControl, type FakeHost, type TestControl } from '../test-support.ts'
import {
  changeVolume,
  createSnapshot,
  createVolume,
  destroyAbandonedVolumes,
  destroyVolume,
  extendVolume,
  findVolume,
  forgetRemovedVolumes,
  getVolume,
  listSnapshots,
  listVolumes,
} from './index.ts'

let control: TestControl
let app: AppRecord

before(async () => {
  control = await startTestControl(['h1', 'h2'])
})
after(() => control.close())
beforeEach(async () => {
  app = await newApp()
  control.beat()
})

async function newApp(org = 'personal'): Promise<AppRecord> {
  const { ctx } = control
  return createApp(ctx, { org: await ensureOrg(ctx, org, org) })
}

const hostOf = (id: string) => control.hosts.find((one) => one.volumes.has(id)) as FakeHost
const otherHost = (host: FakeHost) => control.hosts.find((one) => one !== host) as FakeHost

const told = (code: FaultCode, text: RegExp) => (error: unknown) => {
  assert.ok(error instanceof Fault, String(error))
  assert.equal(error.code, code, error.message)
  assert.match(error.message, text)
  return true
}

async function statusOf(id: string): Promise<string | undefined> {
  const row = await control.ctx.db
    .selectFrom('volume_placements')
    .select('status')
    .where('volume_id', '=', id)
    .executeTakeFirst()
  return row?.status
}

const make = (input: Record<string, unknown> = {}): Promise<Volume> =>
  createVolume(control.ctx, app, { name: 'data', size_gb: 1, ...input })

test('VOL-6: volumes made at once spread over the zones, and more than zones are still made', async () => {
  const made = await Promise.all([1, 2, 3, 4].map(() => make({ require_unique_zone: true })))
  const zones = made.map(({ zone }) => zone).toSorted()
  assert.deepEqual(zones, ['0001', '0001', '0002', '0002'])
  await assert.rejects(
    make({ unique_zone_app_wide: true }),
    told('insufficient_capacity', /every host that is up has a volume of the app/),
  )
  assert.equal((await listVolumes(control.ctx, app)).length, 4)
})

test('VOL-2: extending answers with the volume and whether a restart is needed; the host says what it cannot', async () => {
  const { ctx } = control
  const { id } = await make()
  assert.deepEqual(await extendVolume(ctx, app, id, { size_gb: 4 }), {
    volume: hostOf(id).volumes.get(id),
    needs_restart: false,
  })
  assert.equal((await getVolume(ctx, app, id)).size_gb, 4)
  await assert.rejects(extendVolume(ctx, app, id, { size_gb: 2 }), told('invalid', /never shrinks/))
  for (const body of [{}, { size_gb: null }, { size_gb: '4' }, { size_gb: 501 }, { size_gb: 0 }]) {
    await assert.rejects(extendVolume(ctx, app, id, body), told('invalid', /^size_gb: /))
  }
})

test('VOL-17: retention and automatic snapshots are kept by the host; what is absent stays', async () => {
  const { ctx } = control
  const { id } = await make()
  await changeVolume(ctx, app, id, { snapshot_retention: 9, auto_backup_enabled: null })
  const changed = await changeVolume(ctx, app, id, { auto_backup_enabled: false })
  assert.deepEqual([changed.snapshot_retention, changed.auto_backup_enabled], [9, false])
  assert.equal(hostOf(id).volumes.get(id)?.snapshot_retention, 9)
  await assert.rejects(
    changeVolume(ctx, app, id, { snapshot_retention: 61 }),
    told('invalid', /61|60/),
  )
})

test('VOL-18: a silent host: reads show what was known, everything else is told', async () => {
  const { ctx } = control
  const { id } = await make()
  const host = hostOf(id)
  await host.setReachable(false)
  try {
    assert.equal((await getVolume(ctx, app, id)).host_status, 'unreachable')
    assert.equal((await listVolumes(ctx, app))[0]?.host_status, 'unreachable')
    const silent = told('host_unreachable', /does not answer/)
    await assert.rejects(extendVolume(ctx, app, id, { size_gb: 4 }), silent)
    await assert.rejects(changeVolume(ctx, app, id, { snapshot_retention: 9 }), silent)
    await assert.rejects(createSnapshot(ctx, app, id), silent)
    await assert.rejects(listSnapshots(ctx, app, id), silent)
    await assert.rejects(destroyVolume(ctx, app, id), silent)
    await assert.rejects(make({ source_volume_id: id }), silent)
    await assert.rejects(
      make({ snapshot_id: 'vs_any' }),
      told('host_unreachable', /no host that answers has snapshot vs_any/),
    )
  } finally {
    await host.setReachable(true)
  }
  assert.equal((await getVolume(ctx, app, id)).host_status, 'ok')
})

test('VOL-11: a destroyed volume stays in the list until its host has removed it, and is of no use any more', async () => {
  const { ctx } = control
  const { id } = await make()
  const snapshot = await createSnapshot(ctx, app, id)
  assert.equal((await destroyVolume(ctx, app, id)).state, 'pending_destroy')
  assert.equal((await destroyVolume(ctx, app, id)).state, 'pending_destroy', 'again')
  assert.deepEqual(
    (await listVolumes(ctx, app)).map(({ state }) => state),
    ['pending_destroy'],
  )
  assert.equal((await getVolume(ctx, app, id)).state, 'pending_destroy')
  assert.equal(await findVolume(ctx, app, id), undefined, 'no machine gets it')
  assert.equal((await describeApps(ctx, [app]))[0]?.volume_count, 0)
  const gone = told('precondition_failed', /was destroyed/)
  await assert.rejects(extendVolume(ctx, app, id, { size_gb: 4 }), gone)
  await assert.rejects(changeVolume(ctx, app, id, { snapshot_retention: 9 }), gone)
  await assert.rejects(createSnapshot(ctx, app, id), gone)
  await assert.rejects(make({ source_volume_id: id }), gone)
  assert.deepEqual(
    (await listSnapshots(ctx, app, id)).map((one) => one.id),
    [snapshot.id],
  )
})

test('VOL-14: a destroyed volume is forgotten when its host has neither it nor a snapshot of it', async () => {
  const { ctx } = control
  const { id } = await make()
  await createSnapshot(ctx, app, id)
  await destroyVolume(ctx, app, id)
  await forgetRemovedVolumes(ctx)
  assert.equal(await statusOf(id), 'leaving', 'not before the day is over')
  await ctx.db
    .updateTable('volume_placements')
    .set({ destroyed_at: new Date(Date.now() - 25 * 3_600_000) })
    .where('volume_id', '=', id)
    .execute()
  const host = hostOf(id)
  await forgetRemovedVolumes(ctx)
  assert.equal(await statusOf(id), 'leaving', 'the host still has it')
  host.volumes.delete(id)
  await forgetRemovedVolumes(ctx)
  assert.equal(await statusOf(id), 'leaving', 'a snapshot is left')
  assert.equal((await listSnapshots(ctx, app, id)).length, 1)
  host.snapshots.clear()
  await forgetRemovedVolumes(ctx)
  assert.equal(await statusOf(id), 'gone')
  assert.deepEqual(await listVolumes(ctx, app), [])
})

test('VOL-18: what a list has shown is what a silent host is shown with later', async () => {
  const { ctx } = control
  const { id } = await make()
  const host = hostOf(id)
  Object.assign(host.volumes.get(id) as Volume, { size_gb: 7, attached_machine_id: 'm1' })
  await listVolumes(ctx, app)
  await host.setReachable(false)
  try {
    const [shown] = await listVolumes(ctx, app)
    assert.deepEqual(
      [shown?.size_gb, shown?.attached_machine_id, shown?.host_status],
      [7, 'm1', 'unreachable'],
    )
    await listVolumes(ctx, app)
  } finally {
    await host.setReachable(true)
  }
  assert.equal((await listVolumes(ctx, app))[0]?.host_status, 'ok')
})

test('a destroy that control did not live to write down is seen at the next look', async () => {
  const { ctx } = control
  const { id } = await make()
  Object.assign(hostOf(id).volumes.get(id) as Volume, { state: 'pending_destroy' })
  assert.equal((await listVolumes(ctx, app))[0]?.state, 'pending_destroy')
  assert.equal(await statusOf(id), 'leaving')
})

test('VOL-11: deleting an app removes its volumes at once, those on their way out too', async () => {
  const { ctx } = control
  const kept = await make()
  const leaving = await make()
  await createSnapshot(ctx, app, leaving.id)
  await destroyVolume(ctx, app, leaving.id)
  await deleteApp(ctx, app)
  for (const { id } of [kept, leaving]) {
    assert.equal(await statusOf(id), 'gone')
    assert.ok(control.hosts.every((host) => !host.volumes.has(id)))
  }
  assert.ok(control.hosts.every(({ snapshots }) => snapshots.size === 0))
})

test('VOL-15: a restore is told where the snapshot is, also when its volume is gone and for another app', async () => {
  const { ctx } = control
  const source = await make({ size_gb: 4 })
  const host = hostOf(source.id)
  const { id } = await createSnapshot(ctx, app, source.id)
  await destroyVolume(ctx, app, source.id)
  host.volumes.delete(source.id)
  const owner = app
  app = await newApp()
  const seen: string[] = []
  const restored = await createVolume(
    ctx,
    app,
    { name: 'back', size_gb: 5, snapshot_id: id },
    (from) => void seen.push(from.id),
  )
  assert.deepEqual(seen, [owner.id], 'the caller needs leave to read the app it comes from')
  assert.deepEqual([restored.state, restored.size_gb], ['restoring', 5])
  const asked = hostOf(restored.id).volumeCreates.at(-1)
  const api = `unix:${control.dir}/${host.id}.sock`
  assert.deepEqual(asked?.source, { kind: 'snapshot', id, host_api: api, size_gb: 4 })
  assert.equal(
    (await make({ size_gb: null, snapshot_id: id })).size_gb,
    4,
    'as large as its source',
  )
  await assert.rejects(
    make({ size_gb: 3, snapshot_id: id }),
    told('invalid', /^size_gb: snapshot vs_\w+ needs a volume of 4 GB or more, not 3$/),
  )
  const denied = () => {
    throw new Fault('forbidden', 'not yours')
  }
  await assert.rejects(
    createVolume(ctx, app, { name: 'x', size_gb: 9, snapshot_id: id }, denied),
    told('forbidden', /not yours/),
  )
})

test('VOL-15: no snapshot of a stranger, none that is not there, none that is not finished', async () => {
  const { ctx } = control
  const source = await make()
  const { id } = await createSnapshot(ctx, app, source.id)
  const stored = hostOf(source.id).snapshots.get(id)
  assert.ok(stored)
  stored.status = 'running'
  await assert.rejects(make({ snapshot_id: id }), told('precondition_failed', /still being taken/))
  stored.status = 'failed'
  await assert.rejects(make({ snapshot_id: id }), told('precondition_failed', /failed/))
  stored.status = 'created'
  await assert.rejects(make({ snapshot_id: 'vs_none' }), told('not_found', /no snapshot vs_none/))
  const both = { snapshot_id: id, source_volume_id: source.id }
  await assert.rejects(make(both), told('invalid', /one of them/))
  app = await newApp('strangers')
  await make()
  await assert.rejects(make({ snapshot_id: id }), told('not_found', /no snapshot/))
  await assert.rejects(make({ source_volume_id: source.id }), told('not_found', /no volume/))
  assert.equal((await listVolumes(ctx, app)).length, 1)
})

test('VOL-13: a fork takes name, size, retention and region from its source, and goes to another zone', async () => {
  const source = await make({ size_gb: 4, snapshot_retention: 11 })
  const fork = await createVolume(control.ctx, app, {
    source_volume_id: source.id,
    region: '',
    size_gb: null,
    require_unique_zone: true,
  })
  assert.deepEqual(
    [fork.name, fork.size_gb, fork.snapshot_retention, fork.region, fork.state],
    ['data', 4, 11, 'ord', 'hydrating'],
  )
  assert.notEqual(fork.zone, source.zone)
  const host = hostOf(source.id)
  const api = `unix:${control.dir}/${host.id}.sock`
  const asked = otherHost(host).volumeCreates.at(-1)
  assert.deepEqual(asked?.source, { kind: 'volume', id: source.id, host_api: api, size_gb: 4 })
  await assert.rejects(
    make({ source_volume_id: source.id, size_gb: 3 }),
    told('invalid', /needs a volume of 4 GB or more/),
  )
})

test('any number of volumes on a dead host keep no other from being destroyed', async () => {
  const { ctx } = control
  const { id } = await make()
  const row = { app_id: app.id, name: 'data', region: 'ord', size_gb: 1, placed_by: thisRunner }
  const dead = { ...row, host_id: 'dead', host_api: `unix:${control.dir}/dead.sock` }
  const rows = Array.from({ length: 1_200 }, (_, n) => ({ ...dead, volume_id: `vol_dead${n}` }))
  await ctx.db
    .insertInto('volume_placements')
    .values(rows.map((one) => ({ ...one, status: 'doomed' as const })))
    .execute()
  await ctx.db
    .updateTable('volume_placements')
    .set({ status: 'doomed' })
    .where('volume_id', '=', id)
    .execute()
  for (let round = 0; (await statusOf(id)) !== 'gone'; round++) {
    assert.ok(round < 50, 'its turn never comes')
    await destroyAbandonedVolumes(ctx)
  }
  await ctx.db.deleteFrom('volume_placements').where('host_id', '=', 'dead').execute()
})

test('a create that fails on its host leaves nothing there', async () => {
  const { ctx } = control
  for (const host of control.hosts) {
    host.refuse.push({
      match: /POST \/v1\/volumes$/,
      fault: new Fault('native_failed', 'mkfs.ext4 failed'),
    })
  }
  await assert.rejects(make(), (error) => isFault(error, 'native_failed'))
  for (const host of control.hosts) host.refuse.length = 0
  const { volume_id: id } = await ctx.db
    .selectFrom('volume_placements')
    .select('volume_id')
    .where('app_id', '=', app.id)
    .executeTakeFirstOrThrow()
  assert.equal(await destroyAbandonedVolumes(ctx, { appId: app.id }), 0)
  assert.equal(await statusOf(id), 'gone')
  assert.ok(control.hosts.some(({ calls }) => calls.includes(`DELETE /v1/volumes/${id}?now=true`)))
})

test('a create cut off by a kill of control, or by a silent host, leaves no volume', async () => {
  const { ctx } = control
  for (const host of control.hosts) {
    host.refuse.push({ match: /POST \/v1\/volumes$/, fault: 'act and hang up' })
  }
  await assert.rejects(make(), (error) => isFault(error, 'host_unreachable'))
  for (const host of control.hosts) host.refuse.length = 0
  const [made] = control.hosts.flatMap((host) =>
    [...host.volumes.values()].filter((one) => one.appId === app.id),
  )
  assert.ok(made, 'the host made it without being heard')
  assert.equal(await destroyAbandonedVolumes(ctx, { appId: app.id }), 0)
  assert.ok(control.hosts.every((host) => !host.volumes.has(made.id)))

  const placed = {
    app_id: app.id,
    name: 'data',
    region: 'ord',
    size_gb: 1,
    status: 'placing' as const,
  }
  const [host] = control.hosts as [FakeHost]
  const at = { ...placed, host_id: host.id, host_api: `unix:${control.dir}/${host.id}.sock` }
  const dead = thisRunner.replace(/:\d+:/, ':1:')
  await ctx.db
    .insertInto('volume_placements')
    .values([
      { ...at, volume_id: 'vol_living', placed_by: thisRunner },
      { ...at, volume_id: 'vol_dead', placed_by: dead },
    ])
    .execute()
  assert.equal(await destroyAbandonedVolumes(ctx, { appId: app.id }), 0)
  assert.equal(await statusOf('vol_living'), 'placing', 'its maker lives')
  assert.equal(await statusOf('vol_dead'), 'gone')
})
