import assert from 'node:assert/strict'
import { hostname } from 'node:os'
import { after, before, test } from 'node:test'
import { Fault, isFault } from '#core/fault.ts'
import type { DeployProgress, Release } from '#spec/release.ts'
import { eventually } from '#sys/test-support.ts'
import { createApp, getApp, setSecrets, type AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { listMachines, machineAction } from '../machines/index.ts'
import { ensureNetwork, ensureOrg } from '../orgs/index.ts'
import { startTestControl, type FakeHost, type TestControl } from '../test-support.ts'
import {
  applySecrets,
  currentDefinition,
  followProgress,
  getRelease,
  listReleases,
  resumeDeploys,
  startDeploy,
} from './index.ts'

let control: TestControl
let ctx: ControlContext
let host: FakeHost
before(async () => {
  control = await startTestControl()
  ctx = control.ctx
  host = control.hosts[0] as FakeHost
})
after(() => control.close())

async function newApp(name: string): Promise<AppRecord> {
  const org = await ensureOrg(ctx, 'personal', 'Personal')
  await ensureNetwork(ctx, org.id, 'default')
  control.beat()
  return createApp(ctx, { name, org })
}

const definition = { app: 'x', http_service: { internal_port: 8080 } }
const input = { definition, image: 'hello' }
const user = 'me@example.com'

async function watch(app: AppRecord, release: Release): Promise<DeployProgress[]> {
  const lines: DeployProgress[] = []
  const signal = AbortSignal.timeout(20_000)
  for await (const line of followProgress(ctx, app, release.id, { follow: true, signal })) {
    lines.push(line)
  }
  return lines
}

const statusOf = (lines: DeployProgress[]) => lines.at(-1)?.status

test('DEP-1: a deploy makes machines, is recorded with its definition and digest, and is quick when nothing changed', async () => {
  const app = await newApp('first')
  const release = await startDeploy(ctx, app, input, user)
  assert.deepEqual(
    [release.version, release.status, release.driver, release.user, release.image_ref],
    [1, 'running', 'server', user, 'r/hello:latest@sha256:0'],
  )
  assert.equal(statusOf(await watch(app, release)), 'complete')
  const machines = await listMachines(ctx, app)
  assert.equal(machines.length, 2)
  assert.equal(machines[0]?.config.image, 'r/hello:latest@sha256:0')
  assert.equal(machines[0]?.config.metadata?.['fly_release_id'], release.id)
  assert.deepEqual(await currentDefinition(ctx, app), definition)
  assert.equal((await getApp(ctx, 'first')).status, 'deployed')

  const again = await startDeploy(ctx, app, input, user)
  const lines = await watch(app, again)
  assert.equal(statusOf(lines), 'complete')
  const after = await listMachines(ctx, app)
  assert.deepEqual(
    after.map((machine) => machine.instance_id),
    machines.map((machine) => machine.instance_id),
  )
  assert.ok(after.every((machine) => machine.config.metadata?.['fly_release_version'] === '2'))
  assert.deepEqual(
    (await listReleases(ctx, app)).map((one) => one.version),
    [2, 1],
  )
})

test('TOML-8: what is wrong is told before anything changes', async () => {
  const app = await newApp('refused')
  const refused: [object, string, RegExp][] = [
    [
      { ...input, definition: { http_service: { internal_port: 'abc' }, kill_signal: 'X' } },
      'invalid',
      /http_service\.internal_port must be a whole number from 1 to 65535, not "abc"\nkill_signal|kill_signal.*\n.*internal_port/s,
    ],
    [
      { ...input, definition: { deploy: { strategy: 'canary' } } },
      'not_available_yet',
      /"canary" is not available yet/,
    ],
    [
      { ...input, definition: { primary_region: 'nrt' } },
      'invalid',
      /primary_region "nrt" has no host in this cloud; its regions: ord/,
    ],
    [
      { ...input, definition: { files: [{ guest_path: '/x', local_path: 'x' }] } },
      'invalid',
      /content of x was not sent along/,
    ],
    [{ image: 'hello' }, 'invalid', /^definition: /],
  ]
  for (const [bad, code, message] of refused) {
    await assert.rejects(startDeploy(ctx, app, bad, user), (error) => {
      assert.ok(isFault(error), String(error))
      assert.equal(error.code, code)
      assert.match(error.message, message)
      return true
    })
  }
  host.refuse.push({
    match: /images\/resolve/,
    fault: new Fault('image_unavailable', 'no such image'),
  })
  await assert.rejects(startDeploy(ctx, app, input, user), (error) =>
    isFault(error, 'image_unavailable'),
  )
  assert.deepEqual(await listReleases(ctx, app), [])
  assert.deepEqual(await listMachines(ctx, app), [])
})

test('one deploy of an app at a time; a failure is told with its reason and leaves the app deployable', async () => {
  const app = await newApp('busy')
  host.refuse.push({
    match: /POST \/v1\/machines/,
    fault: new Fault('image_unavailable', 'the image is broken'),
  })
  const first = await startDeploy(ctx, app, input, user)
  const second = await startDeploy(ctx, app, input, 'you@example.com').catch(
    (error: unknown) => error,
  )
  const lines = await watch(app, first)
  if (isFault(second))
    assert.match(second.message, /release v1 of this app is running, started by me@example\.com/)
  assert.equal(statusOf(lines), 'failed')
  assert.match(lines.at(-1)?.message ?? '', /Release v1 failed: the image is broken/)
  assert.equal((await getRelease(ctx, app, first.id)).status, 'failed')
  assert.equal(await currentDefinition(ctx, app), undefined)
  assert.equal(statusOf(await watch(app, await startDeploy(ctx, app, input, user))), 'complete')
  assert.equal((await listMachines(ctx, app)).length, 2)
})

test('a release whose process died is taken up and finished', async () => {
  const app = await newApp('orphan')
  const death = new AbortController()
  const dying: ControlContext = { ...ctx, stopping: death.signal }
  const checked = { ...definition, http_service: { internal_port: 80, checks: [{ path: '/' }] } }
  const release = await startDeploy(dying, app, { ...input, definition: checked }, user)
  const machines = () => [...host.machines.values()].filter((one) => one.app === 'orphan')
  await eventually('it is in the middle', () => machines().length > 0)
  death.abort()
  await new Promise((resolve) => setTimeout(resolve, 700))
  assert.equal(
    (await getRelease(ctx, app, release.id)).status,
    'running',
    'left for the next process',
  )
  for (const machine of host.machines.values()) {
    const check = {
      name: 'servicecheck-00-http-80',
      status: 'passing' as const,
      output: '',
      updated_at: '',
    }
    if (machine.app === 'orphan') machine.checks = [check]
  }
  await ctx.db
    .updateTable('release_runs')
    .set({ runner: `${hostname()}:999999:1` })
    .where('release_id', '=', release.id)
    .execute()
  const watching = watch(app, release)
  const well = setInterval(() => {
    for (const machine of host.machines.values()) {
      const check = {
        name: 'servicecheck-00-http-80',
        status: 'passing' as const,
        output: '',
        updated_at: '',
      }
      if (machine.app === 'orphan') machine.checks = [check]
    }
  }, 50)
  await resumeDeploys(ctx)
  const lines = await watching
  clearInterval(well)
  assert.equal(statusOf(lines), 'complete')
  assert.ok(lines.some((line) => line.message.includes('going on with release v1')))
  assert.equal((await listMachines(ctx, app)).length, 2)
})

test('SEC-3: secrets are given to running machines; stopped ones stay stopped and the config stays', async () => {
  const app = await newApp('sealed')
  await watch(app, await startDeploy(ctx, app, input, user))
  const [one, two] = await listMachines(ctx, app)
  assert.ok(one && two)
  await machineAction(ctx, app, two.id, 'stop')
  await setSecrets(ctx, app, { KEY: 'v' })
  const release = await applySecrets(ctx, await getApp(ctx, 'sealed'), user)
  assert.equal(statusOf(await watch(app, release)), 'complete')
  const after = await listMachines(ctx, app)
  assert.notEqual(after[0]?.instance_id, one.instance_id)
  assert.equal(after.find((machine) => machine.id === two.id)?.state, 'stopped')
  assert.deepEqual(after[0]?.config.services, one.config.services)
  assert.deepEqual(await currentDefinition(ctx, app), definition)
  // A deploy after that restarts nothing: the machines have these secrets.
  await watch(app, await startDeploy(ctx, await getApp(ctx, 'sealed'), input, user))
  const last = await listMachines(ctx, app)
  assert.deepEqual(
    last.map((machine) => machine.instance_id),
    after.map((machine) => machine.instance_id),
  )
})
