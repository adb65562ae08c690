import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { systemClock } from '#core/clock.ts'
import type { Machine } from '#spec/machine.ts'
import { fakeDriver, fakeVms, type FakeDriver } from '#host/runtime/index.ts'
import { openTestHost, type TestHost } from './testing.ts'

/**
 * The host process dies at its n-th step, for every n: before each write to its store and before each act on the
 * runtime or the network. The next process must bring every machine to where it was going.
 */

const id = 'crashtest00000'
const stepsMax = 60

/** Makes the host die before its n-th step; what it was doing fails, as it would with nobody there. */
function dieAtStep(host: TestHost, n: number): { died: () => boolean } {
  const { agent } = host
  let steps = 0
  const step = () => {
    if (++steps === n) host.crash()
    if (steps >= n) throw new Error('the process is dead')
  }
  const before = <T extends object>(parts: T, names: readonly (keyof T & string)[]): T =>
    new Proxy(parts, {
      get(target, name) {
        const value: unknown = Reflect.get(target, name)
        if (typeof value !== 'function') return value
        const act = value.bind(target) as (...args: unknown[]) => unknown
        if (!names.includes(name as keyof T & string)) return act
        if (name === 'transaction') {
          return (...args: unknown[]) => {
            step()
            return act(...args)
          }
        }
        return async (...args: unknown[]) => {
          // As long as a real act takes: the caller has its answer by then.
          await systemClock.sleep(5)
          step()
          return act(...args)
        }
      },
    })
  agent.driver = before(agent.driver, ['start', 'signal', 'destroy', 'resume', 'suspend'])
  agent.net = before(agent.net, ['attach', 'detach'])
  agent.store = before(agent.store, ['transaction'])
  return { died: () => steps >= n }
}

const call = (host: TestHost, method: string, path: string, body?: unknown) =>
  host.call(method, path, body).then(
    () => true,
    () => false,
  )

const create = (host: TestHost, input: object = {}) =>
  call(host, 'POST', '/v1/machines', {
    id,
    app: { id: 'app_1', name: 'web', org: 'personal', network: 3 },
    owner: 'tester',
    input: { config: { image: 'busybox' }, ...input },
  })

const wait = (host: TestHost, state: string) =>
  call(host, 'GET', `/v1/machines/${id}/wait?state=${state}&timeout=60`)

/** One exit event for each process that ended, and one start for each that ran, whatever happened in between. */
function assertHistory(host: TestHost, machine: Machine, n: number): void {
  const told = machine.events.filter((event) => event.type === 'exit').length
  // A resumed machine goes on with the life that it had; so does, for its history, one whose snapshot was lost.
  const starts = machine.events.filter(
    ({ status, request }) => status === 'started' && request?.['resumed'] === undefined,
  ).length
  const running = ['started', 'suspended'].includes(machine.state) ? 1 : 0
  assert.equal(told + running, starts, `step ${n}: ${JSON.stringify(machine.events)}`)
  assert.equal(host.attached.size <= 1, true)
}

async function eachStep(
  t: TestContext,
  scenario: {
    prepare: (host: TestHost) => Promise<unknown>
    act: (host: TestHost) => Promise<boolean>
    /** The state it must come to when the verb was acknowledged. */
    goal: string
    workIsOneStep?: boolean
    /** With VMs, which keep their memory on the disk. */
    vms?: () => FakeDriver
    /** What must be true of a host that came to the goal, beside the history. */
    check?: (host: TestHost) => void
  },
): Promise<void> {
  let deaths = 0
  let acknowledgedDeaths = 0
  for (let n = 1; n <= stepsMax; n++) {
    let host = await openTestHost(t, scenario.vms ? { vms: scenario.vms() } : {})
    await scenario.prepare(host)
    await host.agent.queue.idle()
    const death = dieAtStep(host, n)
    const acknowledged = await scenario.act(host)
    await host.agent.queue.idle()
    if (!death.died()) break
    deaths++
    host = await host.reopen()
    await host.agent.queue.idle()
    const found = host.agent.store.machines.find(id)
    if (acknowledged) {
      assert.ok(found, `step ${n}: an acknowledged machine is lost`)
      await wait(host, scenario.goal)
      assert.equal(host.agent.store.machines.get(id).life.state, scenario.goal, `step ${n}`)
      scenario.check?.(host)
      acknowledgedDeaths++
    }
    if (found) {
      assert.ok(await wait(host, 'settled'), `step ${n}: left in ${found.life.state}`)
      assertHistory(host, await host.call('GET', `/v1/machines/${id}`), n)
    }
    host.crash()
  }
  assert.ok(deaths >= 2 && deaths < stepsMax, `${deaths} deaths`)
  if (!scenario.workIsOneStep) assert.ok(acknowledgedDeaths >= 1, 'some came after the answer')
}

const started = async (host: TestHost) => {
  await create(host)
  assert.ok(await wait(host, 'started'))
}

test('create', (t) =>
  eachStep(t, { prepare: async () => {}, act: (host) => create(host), goal: 'started' }))

test('create to rest', (t) =>
  eachStep(t, {
    prepare: async () => {},
    act: (host) => create(host, { skip_launch: true }),
    goal: 'stopped',
    workIsOneStep: true,
  }))

test('stop', (t) =>
  eachStep(t, {
    prepare: started,
    act: (host) => call(host, 'POST', `/v1/machines/${id}/stop`, {}),
    goal: 'stopped',
  }))

test('restart', (t) =>
  eachStep(t, {
    prepare: started,
    act: (host) => call(host, 'POST', `/v1/machines/${id}/restart`, {}),
    goal: 'started',
  }))

test('update', (t) =>
  eachStep(t, {
    prepare: started,
    act: (host) =>
      call(host, 'POST', `/v1/machines/${id}`, { input: { config: { image: 'second' } } }),
    goal: 'started',
  }))

test('destroy by force', (t) =>
  eachStep(t, {
    prepare: started,
    act: (host) => call(host, 'DELETE', `/v1/machines/${id}?kill=true`),
    goal: 'destroyed',
  }))

test('suspend', (t) =>
  eachStep(t, {
    prepare: started,
    act: (host) => call(host, 'POST', `/v1/machines/${id}/suspend`),
    goal: 'suspended',
  }))

const suspended = async (host: TestHost) => {
  await started(host)
  await call(host, 'POST', `/v1/machines/${id}/suspend`)
  assert.ok(await wait(host, 'suspended'))
}

/** One whole machine: its memory is either in the runtime or gone, and it was booted as often as its history says. */
const oneMachine = (vms: () => FakeDriver | undefined, boots: number) => () => {
  const found = vms()?.calls.filter((verb) => verb === `start ${id}`).length
  assert.equal(found, boots)
}

for (const verb of ['suspend', 'resume', 'stop', 'update'] as const) {
  test(`${verb} of a VM`, async (t) => {
    let vms: FakeDriver | undefined
    const open = () => (vms = fakeDriver(fakeVms))
    const boots = { suspend: 1, resume: 1, stop: 1, update: 2 }[verb]
    const path = verb === 'update' ? '' : `/${verb === 'resume' ? 'start' : verb}`
    const body = verb === 'update' ? { input: { config: { image: 'second' } } } : {}
    await eachStep(t, {
      prepare: verb === 'suspend' ? started : suspended,
      act: (host) => call(host, 'POST', `/v1/machines/${id}${path}`, body),
      goal: { suspend: 'suspended', resume: 'started', stop: 'stopped', update: 'started' }[verb],
      vms: open,
      check: oneMachine(() => vms, boots),
    })
  })
}

test('resume of a VM whose snapshot is lost', async (t) => {
  let vms: FakeDriver | undefined
  await eachStep(t, {
    prepare: async (host) => {
      await suspended(host)
      vms?.loseSnapshot(id)
    },
    act: (host) => call(host, 'POST', `/v1/machines/${id}/start`),
    goal: 'started',
    vms: () => (vms = fakeDriver(fakeVms)),
    check: oneMachine(() => vms, 2),
  })
})

test('resume of a VM whose snapshot is of no use', async (t) => {
  let vms: FakeDriver | undefined
  await eachStep(t, {
    prepare: async (host) => {
      await suspended(host)
      vms?.spoilSnapshot(id)
    },
    act: (host) => call(host, 'POST', `/v1/machines/${id}/start`),
    goal: 'started',
    vms: () => (vms = fakeDriver(fakeVms)),
  })
})
