import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import type { MachineRow } from '#spec/roster.ts'
import { createApp, type AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { ensureOrg } from '../orgs/index.ts'
import { startTestControl, type TestControl } from '../test-support.ts'
import { createMachine, getMachine, listMachines } from './index.ts'
import { strayKeeper, strayMachines } from './strays.ts'

let control: TestControl
let ctx: ControlContext
let app: AppRecord
let aheadMs = 0

before(async () => {
  control = await startTestControl(['h1'])
  ctx = { ...control.ctx, clock: { ...control.ctx.clock, now: () => Date.now() + aheadMs } }
  app = await createApp(ctx, { org: await ensureOrg(ctx, 'personal', 'Personal') })
  control.beat()
})
after(() => control.close())

const announce = (id: string, name = app.name) =>
  ctx.hosts.noteMachine({
    v: 1,
    host: 'h1',
    counter: 1,
    id,
    app: name,
    org: 'personal',
    network: 1,
    region: 'ord',
    primary_region: null,
    process_group: null,
    instance_id: 'v',
    state: 'started',
    ip4: '127.0.0.1',
    ip6: '::1',
    host_api: ctx.hosts.apiOf('h1', ''),
    services: [],
    ready: true,
    cordoned: false,
    startable: true,
    returning: false,
    changed_at: 0,
  } satisfies MachineRow)

test('what hosts have and the records do not is shown, and adopted; nothing is destroyed', async () => {
  const make = () =>
    createMachine(ctx, app, { region: 'ord', config: { image: 'debian' } }, { owner: 'a@b' })
  const kept = await make()
  const lost = await make()
  announce(kept.id)
  announce(lost.id)
  announce('strange', 'no-such-app')
  await ctx.db.deleteFrom('machine_placements').where('machine_id', '=', lost.id).execute()
  const shown = async () => (await strayMachines(ctx)).map(({ id }) => id)
  assert.deepEqual(await shown(), [lost.id, 'strange'].toSorted())
  const keep = strayKeeper(ctx)
  const round = async () => {
    control.beat()
    aheadMs += 61_000
    await keep()
  }
  await round()
  assert.equal((await listMachines(ctx, app)).length, 1, 'seen once, it may be on its way')
  await round()
  assert.deepEqual(await shown(), ['strange'])
  const ids = (await listMachines(ctx, app)).map(({ id }) => id)
  assert.deepEqual(ids.toSorted(), [kept.id, lost.id].toSorted())
  assert.equal(control.hosts[0]?.calls.filter((call) => call.startsWith('DELETE')).length, 0)
})

test('what the records have and its host does not is marked as gone', async () => {
  const [machine] = await listMachines(ctx, app)
  assert.ok(machine)
  ctx.hosts.forgetMachine(machine.id)
  control.hosts[0]?.machines.delete(machine.id)
  aheadMs += 61_000
  control.beat()
  const keep = strayKeeper(ctx)
  aheadMs += 61_000
  await keep()
  const row = await ctx.db
    .selectFrom('machine_placements')
    .select('status')
    .where('machine_id', '=', machine.id)
    .executeTakeFirstOrThrow()
  assert.equal(row.status, 'gone')
  assert.equal((await getMachine(ctx, app, machine.id)).state, 'destroyed')
})

test('a machine of an app that is deleted meanwhile is not taken into the records', async () => {
  aheadMs = 0
  const other = await createApp(ctx, { org: await ensureOrg(ctx, 'personal', 'Personal') })
  const config = { image: 'debian' }
  const { id } = await createMachine(ctx, other, { region: 'ord', config }, { owner: 'a@b' })
  announce(id, other.name)
  await ctx.db.deleteFrom('machine_placements').where('machine_id', '=', id).execute()
  const keep = strayKeeper(ctx)
  const round = () => {
    control.beat()
    aheadMs += 61_000
    return keep()
  }
  await round()
  const kept = await ctx.db.transaction().execute(async (trx) => {
    const deleted_at = new Date()
    await trx.updateTable('apps').set({ deleted_at }).where('id', '=', other.id).execute()
    // For everybody else the app is still there.
    const adopting = round()
    const asked = () => control.hosts[0]?.calls.some((call) => call.includes(`app=${other.id}`))
    while (!asked()) await ctx.clock.sleep(5)
    return { adopting }
  })
  await kept.adopting
  const rows = ctx.db.selectFrom('machine_placements').select('machine_id')
  assert.deepEqual(await rows.where('app_id', '=', other.id).execute(), [])
})
