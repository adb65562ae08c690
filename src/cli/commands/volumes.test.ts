import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Snapshot, Volume } from '#spec/volume.ts'
import { hangar, startApi, testApp } from '../test-support.ts'
import { sizeGbFrom } from '../volumes.ts'

const volume = (fields: Partial<Volume> = {}): Volume => ({
  id: 'vol_1',
  name: 'data',
  state: 'created',
  size_gb: 3,
  region: 'ord',
  zone: '0001',
  encrypted: true,
  attached_machine_id: null,
  attached_alloc_id: null,
  created_at: '2020-01-01T00:00:00Z',
  fstype: 'ext4',
  snapshot_retention: 5,
  auto_backup_enabled: true,
  host_status: 'ok',
  ...fields,
})

const snapshot: Snapshot = {
  id: 'vs_1',
  volume_id: 'vol_1',
  size: 1_572_864,
  volume_size: 3 * 1024 ** 3,
  digest: 'sha256:0',
  created_at: '2020-01-01T00:00:00Z',
  status: 'created',
  retention_days: 5,
}

const root = '/v1/apps/demo/volumes'
const run = (line: string, api: Awaited<ReturnType<typeof startApi>>) =>
  hangar([...line.split(' '), '-a', 'demo'], { api })

test('volumes extend: whole gigabytes, or more of them; what a machine must do is said', async (t) => {
  let attached: string | null = 'm1'
  let needs_restart = false
  const api = await startApi({
    [`GET ${root}/vol_1`]: { json: volume() },
    [`PUT ${root}/vol_1/extend`]: ({ json }) => ({
      json: {
        volume: volume({ ...(json as { size_gb: number }), attached_machine_id: attached }),
        needs_restart,
      },
    }),
  })
  t.after(api.close)
  const grown = await run('volumes extend vol_1 --size +1gb', api)
  assert.equal(grown.code, 0, grown.err)
  assert.match(grown.out, /Size GB: 4\n/)
  assert.match(grown.out, /without needing a restart/)
  needs_restart = true
  const later = await run('vol extend vol_1 -s 7', api)
  assert.match(later.out, /stop and start your Machine.*hangar machine restart m1 -a demo/)
  attached = null
  needs_restart = false
  assert.doesNotMatch((await run('volumes extend vol_1 -s 7gb', api)).out, /Machine/)
  const json = await run('volumes extend vol_1 --size 9 --json', api)
  assert.equal((JSON.parse(json.out) as Volume).size_gb, 9)
  assert.deepEqual(
    api.asked(`PUT ${root}/vol_1/extend`).map((one) => one.json),
    [{ size_gb: 4 }, { size_gb: 7 }, { size_gb: 7 }, { size_gb: 9 }],
  )
  assert.match((await run('volumes extend vol_1', api)).err, /new size with --size/)
  const none = await run('volumes extend vol_2 --size 4', api)
  assert.match(none.err, /app demo has no volume vol_2; see: hangar volumes list -a demo/)
})

test('a size is whole gigabytes, with or without its unit', () => {
  assert.deepEqual(
    ['4', '4gb', '4GB', '+1', '+1gb', '2048mb', '+1024mb'].map((text) => sizeGbFrom(text, 3)),
    [4, 4, 4, 4, 4, 2, 4],
  )
  for (const text of ['', '+', '0', '-1', '1.5', '100mb', 'big', '++1', '1tb']) {
    assert.throws(() => sizeGbFrom(text, 3), /is not a size in whole gigabytes/, text)
  }
})

test('volumes create --snapshot-id: as large as its source by itself, and followed until it is filled', async (t) => {
  const states: Volume['state'][] = ['restoring', 'restoring', 'created']
  const api = await startApi({
    'GET /v1/apps/demo': { json: testApp('demo') },
    [`POST ${root}`]: { json: volume({ state: 'restoring' }) },
    [`GET ${root}/vol_1`]: () => ({ json: volume({ state: states.shift() ?? 'created' }) }),
  })
  t.after(api.close)
  const made = await run('volumes create back -r ord --snapshot-id vs_1', api)
  assert.equal(made.code, 0, made.err)
  assert.equal(made.err, 'Volume vol_1 is restoring\n', 'told once')
  assert.doesNotMatch(made.out, /State/)
  assert.equal(api.asked(`GET ${root}/vol_1`).length, 3)
  const detached = await run('volumes create back -r ord --snapshot-id vs_1 -s 9 --detach', api)
  assert.match(detached.out, /State: restoring/)
  const json = await run('volumes create back -r ord --snapshot-id vs_1 --json', api)
  assert.equal((JSON.parse(json.out) as Volume).state, 'created')
  assert.equal(json.err, '')
  assert.deepEqual(
    api.asked(`POST ${root}`).map((one) => one.json),
    [
      { name: 'back', region: 'ord', snapshot_id: 'vs_1' },
      { name: 'back', region: 'ord', snapshot_id: 'vs_1', size_gb: 9 },
      { name: 'back', region: 'ord', snapshot_id: 'vs_1' },
    ],
  )
})

test('volumes fork and update send what was given; a host that is away names the way out', async (t) => {
  const api = await startApi({
    [`GET ${root}/vol_1`]: { json: volume() },
    [`GET ${root}/vol_9`]: { json: volume({ id: 'vol_9', host_status: 'unreachable' }) },
    [`POST ${root}`]: { json: volume({ id: 'vol_2' }) },
    [`PUT ${root}/vol_1`]: ({ json }) => ({ json: volume(json as Partial<Volume>) }),
  })
  t.after(api.close)
  assert.match((await run('volumes fork vol_1', api)).out, /ID: vol_2\n/)
  await run('volumes fork vol_1 --name copy -r fra --unique-zone-app-wide', api)
  assert.deepEqual(
    api.asked(`POST ${root}`).map((one) => one.json),
    [
      { name: 'data', source_volume_id: 'vol_1' },
      { name: 'copy', source_volume_id: 'vol_1', region: 'fra', unique_zone_app_wide: true },
    ],
  )
  const away = await run('volumes fork vol_9', api)
  assert.match(away.err, /hangar volumes create data --snapshot-id ID -a demo/)
  const line = 'volumes update vol_1 --snapshot-retention 9 --scheduled-snapshots=false --json'
  const updated = JSON.parse((await run(line, api)).out) as Volume
  assert.deepEqual([updated.snapshot_retention, updated.auto_backup_enabled], [9, false])
  assert.match((await run('volumes update vol_1', api)).err, /nothing to change/)
})

test('volumes snapshots: listed with their sizes, taken with their id', async (t) => {
  const list = [
    snapshot,
    { ...snapshot, id: 'vs_2', status: 'failed', size: 0, error: 'full disk' },
  ]
  const api = await startApi({
    [`GET ${root}/vol_1/snapshots`]: { json: list },
    [`GET ${root}/vol_2/snapshots`]: { json: [] },
    [`POST ${root}/vol_1/snapshots`]: { json: snapshot },
  })
  t.after(api.close)
  const table = await run('volumes snapshots list vol_1', api)
  assert.match(table.out, /^vs_1 +created +1\.5 MiB +3 GiB +Jan 1 2020 00:00 +5$/m)
  assert.match(table.out, /Total stored size: 1\.5 MiB/)
  assert.match(table.err, /Snapshot vs_2 failed: full disk/)
  assert.deepEqual(JSON.parse((await run('vol snaps ls vol_1 --json', api)).out), list)
  const empty = await run('volumes snapshots list vol_2', api)
  assert.deepEqual([empty.out, empty.err], ['', 'No snapshots available for volume vol_2\n'])
  const taken = await run('volumes snapshots create vol_1', api)
  assert.equal(taken.out, 'Scheduled to snapshot volume vol_1: vs_1\n')
})

test('volumes list hides what was destroyed, and shows it with --all', async (t) => {
  const all = [volume(), volume({ id: 'vol_2', state: 'pending_destroy' })]
  const api = await startApi({
    'GET /v1/apps/demo': { json: testApp('demo') },
    [`GET ${root}`]: { json: all },
  })
  t.after(api.close)
  assert.deepEqual(JSON.parse((await run('volumes list --json', api)).out), [all[0]])
  assert.deepEqual(JSON.parse((await run('volumes list --all --json', api)).out), all)
  assert.match((await run('volumes list --all', api)).out, /^vol_2 +pending_destroy/m)
})
