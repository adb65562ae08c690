import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import type { Machine } from '#spec/machine.ts'
import { createApp, type AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { ensureOrg } from '../orgs/index.ts'
import { startTestControl, type FakeHost, type TestControl } from '../test-support.ts'
import { createMachine, getMachine, machineAction } from './index.ts'
import { hostLostMsMin, standbyKeeper } from './standbys.ts'

let control: TestControl
let ctx: ControlContext
let app: AppRecord
let aheadMs = 0

before(async () => {
  control = await startTestControl(['h1', 'h2'])
  ctx = { ...control.ctx, clock: { ...control.ctx.clock, now: () => Date.now() + aheadMs } }
  app = await createApp(ctx, { org: await ensureOrg(ctx, 'personal', 'Personal') })
  control.beat()
})
after(() => control.close())

const make = (config: object = {}): Promise<Machine> =>
  createMachine(
    ctx,
    app,
    {
      region: 'ord',
      config: { image: 'debian', ...config },
      ...('standbys' in config ? { skip_launch: true } : {}),
    },
    { owner: 'a@b' },
  )
const hostOf = (id: string): FakeHost => {
  const host = control.hosts.find(({ machines }) => machines.has(id))
  assert.ok(host)
  return host
}

test('MCH-79: a standby starts when the host of its machine failed, and rests when that machine runs again', async () => {
  const machine = await make()
  const standby = await make({ standbys: [machine.id] })
  const host = hostOf(machine.id)
  assert.notEqual(hostOf(standby.id).id, host.id)
  const keep = standbyKeeper(ctx)
  /** What the standby is a while later. */
  const later = async (ms: number) => {
    aheadMs += ms
    await keep()
    return (await getMachine(ctx, app, standby.id)).state
  }
  const lose = async () => {
    await getMachine(ctx, app, machine.id)
    await host.setReachable(false)
    ctx.hosts.pulse.missed(host.id)
    assert.equal(await later(6_000), 'stopped', 'a short silence is none')
  }
  const find = async () => {
    await host.setReachable(true)
    ctx.hosts.pulse.alive(host.id)
  }
  assert.equal(await later(6_000), 'stopped')
  await lose()
  assert.equal(await later(hostLostMsMin), 'started')
  // It ended by itself: it is not started again and again.
  const there = hostOf(standby.id).machines.get(standby.id)
  assert.ok(there)
  there.state = 'stopped'
  assert.equal(await later(6_000), 'stopped')
  there.state = 'started'
  await find()
  assert.equal(await later(6_000), 'stopped')
  // Control is new and a user has stopped the machine: its host's failure moves nothing.
  await machineAction(ctx, app, machine.id, 'stop')
  await lose()
  assert.equal(await later(hostLostMsMin), 'stopped')
  await find()
  // What a user started is left running.
  await machineAction(ctx, app, machine.id, 'start')
  await machineAction(ctx, app, standby.id, 'start')
  assert.equal(await later(6_000), 'started')
})
