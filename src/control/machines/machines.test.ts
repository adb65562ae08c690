import assert from 'node:assert/strict'
import { hostname } from 'node:os'
import { after, before, beforeEach, test } from 'node:test'
import { sql, type PluginTransformQueryArgs, type PluginTransformResultArgs } from 'kysely'
import { systemClock } from '#core/clock.ts'
import { Fault, isFault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import { machineLine } from '#spec/machine-line.ts'
import type { Machine } from '#spec/machine.ts'
import type { MachineRow } from '#spec/roster.ts'
import { createApp, getApp, setSecrets, type AppRecord } from '../apps/index.ts'
import { openHostDirectory } from '../hosts/index.ts'
import { ensureOrg } from '../orgs/index.ts'
import { thisRunner } from '../runner.ts'
import { startTestControl, type FakeHost, type TestControl } from '../test-support.ts'
import { createVolume } from '../volumes/index.ts'
import {
  appLogs,
  appsWithStaleSecrets,
  createMachine,
  deleteApp,
  destroyAbandoned,
  destroyMachine,
  finishDeletions,
  getMachine,
  listMachines,
  machineAction,
  pushSecrets,
  updateMachine,
  waitMachine,
} from './index.ts'
import { lastKnownOf, markGone, placesOf, rememberAll } from './placements.ts'

let control: TestControl
let app: AppRecord
const owner = { owner: 'somebody' }
const host = (index: number) => control.hosts[index] as FakeHost

before(async () => {
  control = await startTestControl(['h1', 'h2'])
})
after(() => control.close())
beforeEach(async () => {
  const { ctx } = control
  app = await createApp(ctx, { org: await ensureOrg(ctx, 'personal', 'Personal') })
  control.beat()
})

test('MCH-39: the config that a host gets and that reads give back is the JSON that was sent', async () => {
  const { ctx } = control
  const config = {
    image: 'debian',
    unknown_key: { a: null, b: false, c: 0, d: [] },
    guest: { cpus: 2, cpu_kind: 'shared', memory_mb: 512, odd: 'kept' },
    services: [{ protocol: 'tcp', internal_port: 80, autostop: false, force_instance_key: null }],
  }
  const machine = await createMachine(ctx, app, { config }, owner)
  assert.equal(JSON.stringify(machine.config), JSON.stringify(config))
  const read = await getMachine(ctx, app, machine.id)
  assert.equal(JSON.stringify(read.config), JSON.stringify(config))
  assert.match(machine.id, /^[0-9a-f]{14}$/)
  assert.match(machine.name, /^[a-z]+-[a-z]+-\d{4}$/)
})

test('lists that many ask for at once, in any order of their machines, all keep what they heard', async () => {
  const { ctx } = control
  const ids = Array.from({ length: 200 }, (_, index) => `lock${(index * 7) % 200}`)
  const rows = ids.map((machine_id) => ({
    machine_id,
    app_id: app.id,
    name: machine_id,
    region: 'ord',
    host_id: 'h1',
    host_api: '',
    status: 'placed' as const,
    placed_by: thisRunner,
  }))
  await ctx.db.insertInto('machine_placements').values(rows).execute()
  const heard = (state: string) =>
    ids.map((id) => ({
      ...machineLine({ id, state, events: [], pad: 'x'.repeat(500) } as unknown as Machine),
      mark: state,
    }))
  // The more has been written, the likelier the database goes through the rows in the order of the list.
  for (let round = 0; round < 4; round++) {
    const lists = Array.from({ length: 8 }, (_, at) => {
      const lines = heard(`${round} ${at}`)
      return rememberAll(ctx, at % 2 === 0 ? lines : lines.toReversed())
    })
    await Promise.all(lists)
  }
  const kept = await lastKnownOf(ctx, ids)
  assert.equal(kept.length, ids.length)
})

test('MCH-90: machines made at once spread over the hosts; MCH-21: a nonce only for the one that took a lease', async () => {
  const { ctx } = control
  const config = { image: 'debian' }
  const made = await Promise.all(
    [0, 1, 2, 3].map((n) =>
      createMachine(ctx, app, { config, lease_ttl: n === 0 ? 30 : 0 }, owner),
    ),
  )
  assert.equal(host(0).creates.filter((one) => one.app.id === app.id).length, 2)
  assert.equal(host(1).creates.filter((one) => one.app.id === app.id).length, 2)
  assert.ok(made[0]?.nonce)
  assert.equal(made[1]?.nonce, undefined)
  const listed = await listMachines(ctx, app)
  assert.equal(listed.length, 4)
  assert.ok(listed.every((machine) => machine.nonce === undefined))
})

test('everything is checked before anything changes', async () => {
  const { ctx } = control
  const cases: [unknown, string, RegExp][] = [
    [{}, 'invalid', /config/],
    [{ config: { image: '' } }, 'invalid', /config.image/],
    [{ config: { image: 'x', guest: { cpus: 3 } } }, 'invalid', /MCH|CPUs/],
    [{ config: { image: 'x' }, region: 'xyz' }, 'invalid', /regions of this cloud: ord/],
    [
      { config: { image: 'x', mounts: [{ volume: 'vol_no', path: '/d' }] } },
      'invalid',
      /no volume vol_no/,
    ],
    [{ config: { image: 'x', mounts: [{ path: '/d' }] } }, 'invalid', /needs "volume"/],
    [
      { config: { image: 'x' }, min_secrets_version: 7 },
      'precondition_failed',
      /secrets version 0/,
    ],
    [
      { config: { image: `${ctx.settings.registry_host}/other:1` } },
      'forbidden',
      /organization personal/,
    ],
  ]
  const before = host(0).calls.length + host(1).calls.length
  for (const [input, code, text] of cases) {
    await assert.rejects(createMachine(ctx, app, input, owner), (error) => {
      assert.ok(error instanceof Fault, String(error))
      assert.equal(error.code, code)
      assert.match(error.message, text)
      return true
    })
  }
  assert.equal(host(0).calls.length + host(1).calls.length, before, 'no host was asked')
  assert.deepEqual(await listMachines(ctx, app), [])
})

test('MCH-10: a machine name is unique in its app while the machine exists', async () => {
  const { ctx } = control
  const input = { name: 'web', config: { image: 'debian' } }
  const first = await createMachine(ctx, app, input, owner)
  await assert.rejects(createMachine(ctx, app, input, owner), (e) => isFault(e, 'name_taken'))
  // It destroys itself and nobody tells control.
  const where = control.hosts.find((one) => one.machines.has(first.id)) as FakeHost
  Object.assign(where.machines.get(first.id) as object, { state: 'destroyed', updated_at: 'later' })
  const second = await createMachine(ctx, app, input, owner)
  assert.notEqual(second.id, first.id)
  assert.equal((await listMachines(ctx, app)).length, 1)
  assert.equal((await listMachines(ctx, app, { includeDeleted: true })).length, 2)
})

test('a host that refuses leaves no ghost, and a full one is passed over', async () => {
  const { ctx } = control
  for (const one of control.hosts) {
    const fault = new Fault('image_unavailable', 'no such image')
    one.refuse.push({ match: /POST \/v1\/machines$/, fault })
  }
  const input = { config: { image: 'debian' } }
  await assert.rejects(createMachine(ctx, app, input, owner), (e) =>
    isFault(e, 'image_unavailable'),
  )
  for (const one of control.hosts) one.refuse.length = 0
  assert.deepEqual(await listMachines(ctx, app, { includeDeleted: true }), [])
  host(0).refuse.push({
    match: /POST \/v1\/machines$/,
    fault: new Fault('insufficient_capacity', 'could not reserve resource for machine: full'),
  })
  await createMachine(ctx, app, input, owner)
  await createMachine(ctx, app, input, owner)
  assert.equal((await listMachines(ctx, app)).length, 2)
  host(0).refuse.length = 0
})

test('a machine that a host made without telling us is destroyed when the host answers', async () => {
  const { ctx } = control
  for (const one of control.hosts) {
    one.refuse.push({ match: /POST \/v1\/machines$/, fault: 'act and hang up' })
  }
  const input = { config: { image: 'debian' } }
  await assert.rejects(createMachine(ctx, app, input, owner), Fault)
  const ghosts = control.hosts.flatMap((one) =>
    [...one.machines.values()].filter((machine) => machine.appId === app.id),
  )
  assert.equal(ghosts.length, 2, 'both hosts were tried and both made one')
  assert.deepEqual(await listMachines(ctx, app, { includeDeleted: true }), [])
  assert.equal(await destroyAbandoned(ctx), 0)
  assert.ok(ghosts.every((machine) => machine.state === 'destroyed'))
})

test('what a dead process was placing is destroyed, what a living one places is left alone', async () => {
  const { ctx } = control
  const machine = await createMachine(ctx, app, { config: { image: 'debian' } }, owner)
  const where = control.hosts.find((one) => one.machines.has(machine.id)) as FakeHost
  const setPlacer = (placed_by: string) =>
    ctx.db
      .updateTable('machine_placements')
      .set({ status: 'placing', placed_by })
      .where('machine_id', '=', machine.id)
      .execute()
  await setPlacer(thisRunner)
  await destroyAbandoned(ctx)
  assert.equal(where.machines.get(machine.id)?.state, 'started')
  await setPlacer(`${hostname()}:${process.pid}:1`)
  assert.equal(await destroyAbandoned(ctx), 0)
  assert.equal(where.machines.get(machine.id)?.state, 'destroyed')
})

test('machines are placed while the bus is silent: hosts are asked themselves', async () => {
  const later = { ...systemClock, now: () => systemClock.now() + 60_000 }
  const ctx = { ...control.ctx, clock: later }
  const hosts = await openHostDirectory({ db: ctx.db, clock: later, log: ctx.log })
  for (const { row } of ctx.hosts.list()) hosts.note(row)
  await hosts.flush()
  const restarted = await openHostDirectory({ db: ctx.db, clock: later, log: ctx.log })
  const { id } = await createMachine(
    { ...ctx, hosts: restarted },
    app,
    { config: { image: 'x' } },
    owner,
  )
  assert.ok(control.hosts.some((one) => one.machines.has(id)))
})

test('MCH-81: machines of a silent host are shown as last known, and the others are not held up', async () => {
  const { ctx } = control
  const config = { image: 'debian' }
  await createMachine(ctx, app, { config }, owner)
  await createMachine(ctx, app, { config }, owner)
  const silent = host(1)
  await silent.setReachable(false)
  try {
    const listed = await listMachines(ctx, app)
    assert.deepEqual(listed.map((one) => one.host_status).toSorted(), ['ok', 'unreachable'])
    const away = listed.find((one) => one.host_status === 'unreachable')
    assert.ok(away)
    assert.deepEqual(away.config, config)
    const announced = { id: away.id, state: 'stopping' } as MachineRow
    ctx.hosts.noteMachine(announced)
    assert.equal((await getMachine(ctx, app, away.id)).state, 'stopping', 'as announced last')
    ctx.hosts.forgetMachine(away.id)
    assert.equal((await getMachine(ctx, app, away.id)).host_status, 'unreachable')
    await assert.rejects(machineAction(ctx, app, away.id, 'stop'), (error) =>
      isFault(error, 'host_unreachable'),
    )
  } finally {
    await silent.setReachable(true)
  }
})

test('MCH-24: a volume pins its machine; VOL-1', async () => {
  const { ctx } = control
  const volume = await createVolume(ctx, app, { name: 'data' })
  assert.equal(volume.size_gb, 3)
  const where = control.hosts.findIndex((one) => one.volumes.has(volume.id))
  for (let i = 0; i < 2; i++) {
    const config = { image: 'x', mounts: [{ volume: volume.id, path: '/data' }] }
    const machine = await createMachine(ctx, app, { config }, owner)
    assert.ok(host(where).machines.has(machine.id))
  }
})

test('SEC-2, SEC-3: hosts get the newest secrets with a create, at once when set, and later when they were away', async () => {
  const { ctx } = control
  await setSecrets(ctx, app, { KEY: 'one' })
  app = await getApp(ctx, app.name)
  const machine = await createMachine(ctx, app, { config: { image: 'x' } }, owner)
  const where = control.hosts.find((one) => one.machines.has(machine.id)) as FakeHost
  assert.deepEqual(where.creates.at(-1)?.secrets, { version: 1, values: { KEY: 'one' } })
  await where.setReachable(false)
  await setSecrets(ctx, app, { KEY: 'two', OTHER: 'x' })
  app = await getApp(ctx, app.name)
  assert.deepEqual(await pushSecrets(ctx, app), [where.id])
  assert.deepEqual(await appsWithStaleSecrets(ctx), [app.id])
  await where.setReachable(true)
  await machineAction(ctx, app, machine.id, 'start')
  const held = where.secrets.get(app.id)
  assert.deepEqual(held, { version: 2, values: { KEY: 'two', OTHER: 'x' } })
  assert.deepEqual(await appsWithStaleSecrets(ctx), [])
})

test('MCH-37: a destroyed machine is not found in lists, stays readable, and destroying it again is told', async () => {
  const { ctx } = control
  const machine = await createMachine(ctx, app, { config: { image: 'x' } }, owner)
  await destroyMachine(ctx, app, machine.id, { kill: true })
  assert.deepEqual(await listMachines(ctx, app), [])
  assert.equal((await getMachine(ctx, app, machine.id)).state, 'destroyed')
  for (const one of control.hosts) one.machines.delete(machine.id)
  assert.equal(
    (await getMachine(ctx, app, machine.id)).state,
    'destroyed',
    'after its host forgot it',
  )
  await waitMachine(ctx, app, machine.id, { states: ['destroyed'] })
  await assert.rejects(getMachine(ctx, app, 'ffffffffffffff'), /machine not found/)
})

test('MCH-50: a wait outlives a restart of the host, and refuses a state that does not exist', async () => {
  const { ctx } = control
  const machine = await createMachine(
    ctx,
    app,
    { config: { image: 'x' }, skip_launch: true },
    owner,
  )
  await assert.rejects(waitMachine(ctx, app, machine.id, { states: ['flying'] }), (error) =>
    isFault(error, 'bad_request'),
  )
  const where = control.hosts.find((one) => one.machines.has(machine.id)) as FakeHost
  await where.setReachable(false)
  const waiting = waitMachine(ctx, app, machine.id, { states: ['stopped'], timeoutSeconds: 60 })
  await new Promise((resolve) => setTimeout(resolve, 300))
  await where.setReachable(true)
  await waiting
})

test('MCH-30: an update replaces the whole config', async () => {
  const { ctx } = control
  const machine = await createMachine(ctx, app, { config: { image: 'x', env: { A: '1' } } }, owner)
  const updated = await updateMachine(ctx, app, machine.id, { config: { image: 'y' } })
  assert.deepEqual(updated.config, { image: 'y' })
  assert.notEqual(updated.instance_id, machine.instance_id)
})

test('an app is deleted with a host away; its machine goes when the host is back; the name is free at once', async () => {
  const { ctx } = control
  const machine = await createMachine(ctx, app, { config: { image: 'x' } }, owner)
  const where = control.hosts.find((one) => one.machines.has(machine.id)) as FakeHost
  await where.setReachable(false)
  await deleteApp(ctx, app)
  await assert.rejects(getApp(ctx, app.name), (error) => isFault(error, 'not_found'))
  await createApp(ctx, { name: app.name, org: app.org })
  await where.setReachable(true)
  assert.equal(await destroyAbandoned(ctx), 0)
  assert.equal(where.machines.get(machine.id)?.state, 'destroyed')
})

test('a deletion that dies in the middle is finished by who looks next, and its name is free then', async () => {
  const { ctx } = control
  const machine = await createMachine(ctx, app, { config: { image: 'x' } }, owner)
  await setSecrets(ctx, app, { A: 'b' })
  const where = control.hosts.find((one) => one.machines.has(machine.id)) as FakeHost
  // The process dies once the machines are given up: nothing after that is done.
  const dies = {
    transformQuery: ({ node }: PluginTransformQueryArgs) => {
      const touches = JSON.stringify(node).includes('volume_placements')
      if (touches) throw new Error('killed')
      return node
    },
    transformResult: async ({ result }: PluginTransformResultArgs) => result,
  }
  await assert.rejects(deleteApp({ ...ctx, db: ctx.db.withPlugin(dies) }, app), /killed/)
  assert.equal((await getApp(ctx, app.name)).id, app.id)
  await assert.rejects(
    createMachine(ctx, app, { config: { image: 'x' } }, owner),
    (error) => isFault(error, 'not_found') && /being deleted/.test(error.message),
  )
  where.calls.length = 0
  await finishDeletions(ctx)
  assert.equal(where.machines.get(machine.id)?.state, 'destroyed')
  assert.ok(where.calls.includes(`DELETE /v1/apps/${app.id}`), 'its logs go too')
  const secrets = ctx.db.selectFrom('secrets').select('name').where('app_id', '=', app.id)
  assert.deepEqual(await secrets.execute(), [])
  await createApp(ctx, { name: app.name, org: app.org })
  where.calls.length = 0
  await finishDeletions(ctx)
  assert.deepEqual(where.calls, [], 'it is done once')
})

test('OBS-10: log lines of several hosts are merged by time, and followed', async () => {
  const { ctx } = control
  await createMachine(ctx, app, { config: { image: 'x' } }, owner)
  await createMachine(ctx, app, { config: { image: 'x' } }, owner)
  const line = (ns: number, message: string) =>
    JSON.stringify({
      ns: String(ns),
      timestamp: 't',
      app: app.name,
      region: 'ord',
      instance: 'i',
      level: 'info',
      provider: 'app',
      message,
    })
  host(0).logs = [line(1, 'a'), 'not json', line(30, 'c')]
  host(1).logs = [line(9, 'b')]
  const past: string[] = []
  const never = new AbortController()
  for await (const one of appLogs(ctx, app, { signal: never.signal })) past.push(one.message)
  assert.deepEqual(past, ['a', 'b', 'c'])
  const newest: string[] = []
  for await (const one of appLogs(ctx, app, { limit: 1, signal: never.signal }))
    newest.push(one.message)
  assert.deepEqual(newest, ['c'])
  const enough = new AbortController()
  const seen: string[] = []
  for await (const one of appLogs(ctx, app, { follow: true, signal: enough.signal })) {
    seen.push(one.message)
    if (seen.length === 6) enough.abort()
  }
  assert.equal(seen.length, 6)
  assert.ok(host(0).calls.some((call) => /logs.*since=30.*follow=true/.test(call)))
  host(0).logs = host(1).logs = []
})

test('nothing that is made while its app is deleted outlives it', async () => {
  const { ctx } = control
  const config = { config: { image: 'x' } }
  const makes = Array.from({ length: 12 }, async (_, i) => {
    await systemClock.sleep(i * 3)
    await createMachine(ctx, app, config, owner)
    await createVolume(ctx, app, { name: 'data', size_gb: 1 })
  })
  const deletion = systemClock.sleep(15).then(() => deleteApp(ctx, app))
  await Promise.allSettled(makes)
  await deletion
  const gone = (error: unknown) => isFault(error, 'not_found')
  await assert.rejects(createMachine(ctx, app, config, owner), gone)
  await assert.rejects(createVolume(ctx, app, { name: 'data', size_gb: 1 }), gone)
  assert.equal(await destroyAbandoned(ctx), 0)
  const left = control.hosts.flatMap((one) =>
    [...one.machines.values()].filter(
      ({ appId, state }) => appId === app.id && state !== 'destroyed',
    ),
  )
  assert.deepEqual(left, [])
  const placed = await ctx.db
    .selectFrom('volume_placements')
    .select('volume_id')
    .where('app_id', '=', app.id)
    .where('status', 'in', ['placing', 'placed'])
    .execute()
  assert.deepEqual(placed, [])
})

test('nothing is kept in memory of a machine that is gone: what is heard of it then is written', async () => {
  const { ctx } = control
  const { id } = await createMachine(ctx, app, { config: { image: 'x' } }, owner)
  const line = machineLine(await getMachine(ctx, app, id))
  await rememberAll(ctx, [line])
  await markGone(ctx, id)
  assert.equal((await lastKnownOf(ctx, [id]))[0]?.state, 'destroyed')
  await rememberAll(ctx, [line])
  assert.equal((await lastKnownOf(ctx, [id]))[0]?.state, 'started')
})

test('however many are destroyed, a list with them has every machine that exists and the newest of the others', async () => {
  const { ctx } = control
  await sql`
    insert into machine_placements
      (machine_id, app_id, name, region, host_id, host_api, status, placed_by, created_at)
    select ${app.id} || n, ${app.id}, 'm' || n, 'ord', 'h1', '', 'gone', '', now() - n * interval '1 s'
    from generate_series(1, ${limits.goneMachinesPerListMax + 20_000}::int) n`.execute(ctx.db)
  const { id } = await createMachine(ctx, app, { config: { image: 'x' } }, owner)
  const places = await placesOf(ctx, app, { includeGone: true })
  assert.equal(places.length, limits.goneMachinesPerListMax + 1)
  assert.deepEqual(
    places.slice(-2).map(({ machine_id }) => machine_id),
    [`${app.id}1`, id],
  )
})

test('secrets that a host misses are logged once, and that it has them after all', async () => {
  const { ctx } = control
  await createMachine(ctx, app, { config: { image: 'x' } }, owner)
  const where = control.hosts.find((one) =>
    [...one.machines.values()].some(({ appId }) => appId === app.id),
  ) as FakeHost
  const lines: string[] = []
  const say = (level: string) => () => void lines.push(level)
  const log = Object.assign(Object.create(ctx.log) as typeof ctx.log, {
    warn: say('warn'),
    info: say('info'),
  })
  const world = { ...ctx, log }
  await where.setReachable(false)
  for (let round = 0; round < 3; round++) {
    assert.deepEqual(await pushSecrets(world, app), [where.id])
  }
  assert.deepEqual(lines, ['warn'])
  await where.setReachable(true)
  for (let round = 0; round < 3; round++) await pushSecrets(world, app)
  assert.deepEqual(lines, ['warn', 'info'])
})
