import { Hono, type Context } from 'hono'
import { z } from 'zod'
import { Fault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import { hostCreateSchema, hostUpdateSchema } from '#spec/host-api.ts'
import type { MachineConfig } from '#spec/machine-config.ts'
import { writeMachineList } from '#spec/machine-line.ts'
import { execInputSchema, leaseNonceHeader } from '#spec/machine.ts'
import { readProgramQuery } from '#spec/program.ts'
import { requireUpgrade } from '#sys/web-socket.ts'
import type { Agent, Source } from './agent.ts'
import { createMachine } from './create.ts'
import { execInMachine, openInMachine, serveProgram } from './exec.ts'
import { acquireLease, readLease, releaseLease } from './leases.ts'
import { presentLease, presentMachine, writeMachine } from './present.ts'
import { routed } from './routed.ts'
import { queryNumber, readJson } from './http-input.ts'
import { updateMachine } from './update.ts'
import {
  cordonMachine,
  destroyMachine,
  restartMachine,
  setMetadata,
  signalMachine,
  startMachine,
  stopMachine,
  suspendMachine,
  type Caller,
} from './verbs.ts'
import { waitFor, waitStates, type WaitState } from './wait.ts'
import { wakeMachine } from './wake.ts'

const stopSchema = z.looseObject({
  signal: z.string().nullish(),
  timeout: z.union([z.string(), z.number()]).nullish(),
})
const signalSchema = z.object({ signal: z.string() })
const leaseSchema = z.looseObject({
  ttl: z.int().nullish(),
  description: z.string().nullish(),
  owner: z.string().nullish(),
})
const metadataSchema = z.object({ value: z.string() })

const sources: readonly Source[] = ['user', 'proxy', 'flyd']

function callerOf(context: Context): Caller {
  const source = sources.find((one) => one === context.req.header('x-hangar-source')) ?? 'user'
  return { source, nonce: context.req.header(leaseNonceHeader) || undefined }
}

/** MCH-39: the config as it was written, not as a parser gave it back. */
function rawConfig(raw: unknown): MachineConfig {
  return (raw as { input: { config: MachineConfig } }).input.config
}

const ok = { ok: true } as const

export function machineRoutes(agent: Agent): Hono {
  const routes = new Hono()
  collection(routes, agent)
  lifeVerbs(routes, agent)
  reads(routes, agent)
  leases(routes, agent)
  metadata(routes, agent)
  return routes
}

function collection(routes: Hono, agent: Agent): void {
  routes.post('/v1/machines', async (context) => {
    const { data, raw } = await readJson(context, hostCreateSchema)
    const input = { ...data.input, config: rawConfig(raw) }
    const { record, lease } = await createMachine(agent, { ...data, input })
    const machine = presentMachine(agent, record)
    return context.json(lease ? { ...machine, nonce: lease.nonce } : machine)
  })
  routes.get('/v1/machines', (context) => {
    const app = context.req.query('app')
    const deleted = context.req.query('include_deleted') === 'true'
    const records = [...agent.store.machines.all()].filter(
      (record) =>
        (!app || record.app.id === app || record.app.name === app) &&
        (record.destroyedAt === null || deleted),
    )
    if (context.req.query('indexed') === 'true') {
      return context.body(writeMachineList(records.map((record) => writeMachine(agent, record))))
    }
    return context.json(records.map((record) => presentMachine(agent, record)))
  })
  routes.get('/v1/machines/:id', (context) =>
    context.json(presentMachine(agent, agent.store.machines.get(context.req.param('id')))),
  )
  routes.post('/v1/machines/:id', async (context) => {
    const id = context.req.param('id')
    const { data, raw } = await readJson(context, hostUpdateSchema)
    const request = { ...data, input: { ...data.input, config: rawConfig(raw) } }
    const record = await updateMachine(agent, id, callerOf(context), request)
    return context.json(presentMachine(agent, record))
  })
  routes.delete('/v1/machines/:id', async (context) => {
    const kill = context.req.query('kill') === 'true' || context.req.query('force') === 'true'
    await destroyMachine(agent, context.req.param('id'), callerOf(context), kill)
    return context.json(ok)
  })
}

function lifeVerbs(routes: Hono, agent: Agent): void {
  routes.post('/v1/machines/:id/start', async (context) =>
    context.json(await startMachine(agent, context.req.param('id'), callerOf(context))),
  )
  routes.post('/v1/machines/:id/stop', async (context) => {
    const { data } = await readJson(context, stopSchema)
    await stopMachine(agent, context.req.param('id'), callerOf(context), data)
    return context.json(ok)
  })
  routes.post('/v1/machines/:id/restart', async (context) => {
    const { data } = await readJson(context, stopSchema)
    await restartMachine(agent, context.req.param('id'), callerOf(context), {
      signal: context.req.query('signal') || data.signal,
      timeout: context.req.query('timeout') || data.timeout,
      forceStop: context.req.query('force_stop') === 'true',
    })
    return context.json(ok)
  })
  routes.post('/v1/machines/:id/suspend', async (context) => {
    await suspendMachine(agent, context.req.param('id'), callerOf(context))
    return context.json(ok)
  })
  routes.post('/v1/machines/:id/signal', async (context) => {
    const { data } = await readJson(context, signalSchema)
    await signalMachine(agent, context.req.param('id'), callerOf(context), data.signal)
    return context.json(ok)
  })
  for (const verb of ['cordon', 'uncordon'] as const) {
    routes.post(`/v1/machines/:id/${verb}`, (context) => {
      const id = context.req.param('id') as string
      cordonMachine(agent, id, callerOf(context), verb === 'cordon')
      return context.json(ok)
    })
  }
  routes.post('/v1/machines/:id/exec', async (context) => {
    const { data } = await readJson(context, execInputSchema)
    return context.json(await execInMachine(agent, context.req.param('id'), data))
  })
  routes.get('/v1/machines/:id/exec', async (context) => {
    const accept = requireUpgrade(context.env)
    const query = readProgramQuery(context.req.url)
    const program = await openInMachine(agent, context.req.param('id'), query)
    try {
      void serveProgram(program, await accept())
    } catch (error) {
      program.close()
      throw error
    }
    return context.json(ok)
  })
  routes.post('/v1/machines/:id/wake', async (context) =>
    context.json({ row: await wakeMachine(agent, context.req.param('id')) }),
  )
}

function reads(routes: Hono, agent: Agent): void {
  routes.get('/v1/machines/:id/wait', async (context) => {
    const states = context.req.queries('state') ?? ['started']
    const unknown = states.find((state) => !waitStates.includes(state as WaitState))
    if (unknown !== undefined) {
      const known = waitStates.join(', ')
      throw new Fault('bad_request', `unknown state "${unknown}"; wait for one of ${known}`)
    }
    await waitFor(agent, context.req.param('id'), {
      states: states as WaitState[],
      timeoutSeconds: queryNumber(context, 'timeout') ?? limits.waitSecondsMax,
      instanceId: context.req.query('instance_id') || context.req.query('version') || undefined,
      signal: context.req.raw.signal,
    })
    return context.json(ok)
  })
  routes.get('/v1/machines/:id/routed', async (context) => {
    const timeoutMs = Math.min(queryNumber(context, 'timeout_ms') ?? 2_000, limits.holdMsMax)
    return context.json(await routed(agent, context.req.param('id'), timeoutMs))
  })
  routes.get('/v1/machines/:id/ps', async (context) => {
    const { id } = agent.store.machines.get(context.req.param('id'))
    return context.json(await agent.driver.ps(id))
  })
  routes.get('/v1/machines/:id/events', (context) => {
    const { id } = agent.store.machines.get(context.req.param('id'))
    return context.json(agent.store.history.events(id))
  })
  routes.get('/v1/machines/:id/versions', (context) => {
    const { id } = agent.store.machines.get(context.req.param('id'))
    return context.json(agent.store.history.versions(id))
  })
}

function leases(routes: Hono, agent: Agent): void {
  routes.get('/v1/machines/:id/lease', (context) => {
    const { id, instanceId } = agent.store.machines.get(context.req.param('id'))
    const data = presentLease(readLease(agent, id), instanceId)
    return context.json({ status: 'success', data })
  })
  routes.post('/v1/machines/:id/lease', async (context) => {
    const { data } = await readJson(context, leaseSchema)
    const { id, instanceId } = agent.store.machines.get(context.req.param('id'))
    const header = context.req.header('x-hangar-owner')
    const lease = acquireLease(agent, id, {
      ttlSeconds: queryNumber(context, 'ttl') ?? data.ttl ?? 0,
      owner: data.owner ?? (header ? decodeURIComponent(header) : 'unknown'),
      description: data.description ?? '',
      nonce: context.req.header(leaseNonceHeader) || undefined,
    })
    const shown = { nonce: lease.nonce, ...presentLease(lease, instanceId) }
    return context.json({ status: 'success', data: shown }, 201)
  })
  routes.delete('/v1/machines/:id/lease', (context) => {
    const nonce = context.req.header(leaseNonceHeader) || undefined
    releaseLease(agent, context.req.param('id'), nonce)
    return context.json({ status: 'success', ...ok })
  })
}

function metadata(routes: Hono, agent: Agent): void {
  const read = (context: Context) =>
    agent.store.machines.get(context.req.param('id') as string).config.metadata ?? {}
  routes.get('/v1/machines/:id/metadata', (context) => context.json(read(context)))
  routes.get('/v1/machines/:id/metadata/:key', (context) => {
    const key = context.req.param('key')
    const value = Object.hasOwn(read(context), key) ? read(context)[key] : undefined
    if (value === undefined) throw new Fault('not_found', `the machine has no metadata key ${key}`)
    return context.json({ value })
  })
  routes.post('/v1/machines/:id/metadata/:key', async (context) => {
    const { data } = await readJson(context, metadataSchema)
    const { id, key } = context.req.param()
    setMetadata(agent, id, { key, value: data.value })
    return context.body(null, 204)
  })
  routes.delete('/v1/machines/:id/metadata/:key', (context) => {
    const { id, key } = context.req.param()
    setMetadata(agent, id, { key, value: undefined })
    return context.body(null, 204)
  })
}
