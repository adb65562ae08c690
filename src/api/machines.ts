import { constants } from 'node:os'
import type { Hono } from 'hono'
import { Fault } from '#core/fault.ts'
import {
  leaseInputSchema,
  leaseNonceHeader,
  machineStateSchema,
  textValueSchema,
  verbInputSchema,
  type VerbInput,
} from '#spec/machine.ts'
import {
  acquireLease,
  createMachine,
  currentLease,
  destroyMachine,
  execMachine,
  getMachine,
  listMachinesJson,
  machineAction,
  machineEvents,
  machineMetadata,
  machineProcesses,
  machineVerbs,
  machineVersions,
  releaseLease,
  setMachineMetadata,
  updateMachine,
  waitMachine,
  type ActOptions,
} from '#control/machines/index.ts'
import { bodyOf } from './body.ts'
import {
  appOf,
  flag,
  jsonBody,
  objectBody,
  param,
  secondsOf,
  type Env,
  type Request,
} from './request.ts'

const root = '/v1/apps/:app/machines'
const one = `${root}/:id`

/** What every verb is told about its caller: the lease nonce shown, and who takes a lease. */
const actor = (c: Request): ActOptions & { owner: string } => ({
  nonce: c.req.header(leaseNonceHeader),
  owner: c.var.caller.email,
  source: 'user',
})

/** Old clients name a signal by its number: `{signal: 9}`. Hosts know names. */
function withSignalName<T extends { signal?: unknown }>(fields: T): T {
  const number = Number(fields.signal)
  if (fields.signal === undefined || !Number.isInteger(number) || number < 1) return fields
  const name = Object.entries(constants.signals).find(([, value]) => value === number)?.[0]
  if (!name) throw new Fault('invalid', `unknown signal ${number}`)
  return { ...fields, signal: name }
}

/** What a host reads of a verb's body: one that it does not read to its end would break the connection. */
const verbBody = ({ signal, timeout }: VerbInput) => ({
  ...(signal === undefined ? {} : { signal }),
  ...(timeout === undefined ? {} : { timeout }),
})

/** Who makes machines and asks about single ones may be driving a deploy: a list, as a dashboard reads it, is no sign of that. */
async function whileHeard<T>(c: Request, work: () => Promise<T>): Promise<T> {
  const { ctx, caller } = c.var
  const answered = ctx.clients.begin(param(c, 'app'), caller.tokenId)
  try {
    return await work()
  } finally {
    answered()
  }
}

/** §2.1, §5.2. */
export function machineRoutes(api: Hono<Env>): void {
  api.use(`${one}/*`, (c, next) => whileHeard(c, next))
  readRoutes(api)
  leaseRoutes(api)
  metadataRoutes(api)

  api.post(root, async (c) => {
    const app = await appOf(c, 'write')
    const owner = c.var.caller.email
    const input = await jsonBody(c)
    return c.json(await whileHeard(c, () => createMachine(c.var.ctx, app, input, { owner })))
  })

  api.post(one, async (c) => {
    const app = await appOf(c, 'write')
    return c.json(await updateMachine(c.var.ctx, app, param(c, 'id'), await jsonBody(c), actor(c)))
  })

  api.delete(one, async (c) => {
    const app = await appOf(c, 'write')
    const kill = flag(c.req.query('kill')) || flag(c.req.query('force'))
    await destroyMachine(c.var.ctx, app, param(c, 'id'), { ...actor(c), kill })
    return c.json({ ok: true })
  })

  for (const verb of machineVerbs) {
    api.post(`${one}/${verb}`, async (c) => {
      const app = await appOf(c, 'write')
      const answer = await machineAction(c.var.ctx, app, param(c, 'id'), verb, {
        ...actor(c),
        query: withSignalName(c.req.query()),
        body: withSignalName(verbBody(await bodyOf(c, verbInputSchema))),
      })
      if (verb !== 'start') return c.json({ ok: true, ...answer })
      const always = {
        message: '',
        status: 'ok',
        previous_state: '',
        migrated: false,
        new_host: '',
      }
      return c.json({ ...always, ...answer })
    })
  }

  api.post(`${one}/exec`, async (c) => {
    const app = await appOf(c, 'write')
    return c.json(await execMachine(c.var.ctx, app, param(c, 'id'), await objectBody(c), actor(c)))
  })
}

function readRoutes(api: Hono<Env>): void {
  api.get(root, async (c) => {
    const app = await appOf(c, 'read')
    const query = c.req.query()
    const states = (c.req.queries('state') ?? []).flatMap((state) => state.split(','))
    const parsed = machineStateSchema.array().safeParse(states)
    if (!parsed.success) throw new Fault('bad_request', `unknown state in ${states.join(', ')}`)
    const metadata = Object.entries(query).flatMap(([name, value]) =>
      name.startsWith('metadata.') ? [[name.slice('metadata.'.length), value]] : [],
    )
    const machines = await listMachinesJson(c.var.ctx, app, {
      includeDeleted: flag(query['include_deleted'] ?? 'false'),
      ...(query['region'] ? { region: query['region'] } : {}),
      ...(states.length > 0 ? { state: parsed.data } : {}),
      metadata: Object.fromEntries(metadata) as Record<string, string>,
    })
    return c.body(machines, 200, { 'content-type': 'application/json' })
  })

  api.get(one, async (c) =>
    c.json(await getMachine(c.var.ctx, await appOf(c, 'read'), param(c, 'id'))),
  )
  api.get(`${one}/events`, async (c) =>
    c.json(await machineEvents(c.var.ctx, await appOf(c, 'read'), param(c, 'id'))),
  )
  api.get(`${one}/versions`, async (c) =>
    c.json(await machineVersions(c.var.ctx, await appOf(c, 'read'), param(c, 'id'))),
  )
  api.get(`${one}/ps`, async (c) =>
    c.json(await machineProcesses(c.var.ctx, await appOf(c, 'read'), param(c, 'id'))),
  )

  api.get(`${one}/wait`, async (c) => {
    const app = await appOf(c, 'read')
    await waitMachine(c.var.ctx, app, param(c, 'id'), {
      states: (c.req.queries('state') ?? []).flatMap((state) => state.split(',')).filter(Boolean),
      timeoutSeconds: secondsOf(c.req.query('timeout'), 'timeout'),
      instanceId: c.req.query('instance_id') || c.req.query('version') || undefined,
      fromEventId: c.req.query('from_event_id') || undefined,
      signal: c.req.raw.signal,
    })
    return c.json({ ok: true })
  })
}

/** §2.7. */
function leaseRoutes(api: Hono<Env>): void {
  const path = `${one}/lease`
  api.get(path, async (c) => {
    const lease = await currentLease(c.var.ctx, await appOf(c, 'read'), param(c, 'id'))
    // Whoever holds the lease has the nonce already; it must not become readable for the others.
    const { nonce: _, ...data } = lease
    return c.json({ status: 'success', data })
  })
  api.post(path, async (c) => {
    const app = await appOf(c, 'write')
    const { ttl, description } = await bodyOf(c, leaseInputSchema)
    const ttlSeconds = secondsOf(c.req.query('ttl') ?? ttl, 'ttl')
    const data = await acquireLease(c.var.ctx, app, param(c, 'id'), {
      ...actor(c),
      ...(ttlSeconds === undefined ? {} : { ttlSeconds }),
      ...(typeof description === 'string' ? { description } : {}),
    })
    return c.json({ status: 'success', data }, 201)
  })
  api.delete(path, async (c) => {
    await releaseLease(c.var.ctx, await appOf(c, 'write'), param(c, 'id'), actor(c))
    return c.json({ ok: true })
  })
}

/** MCH-85, MCH-86. */
function metadataRoutes(api: Hono<Env>): void {
  const path = `${one}/metadata`
  api.get(path, async (c) =>
    c.json(await machineMetadata(c.var.ctx, await appOf(c, 'read'), param(c, 'id'))),
  )
  api.get(`${path}/:key`, async (c) => {
    const all = await machineMetadata(c.var.ctx, await appOf(c, 'read'), param(c, 'id'))
    const value = Object.hasOwn(all, param(c, 'key')) ? all[param(c, 'key')] : undefined
    if (value === undefined) {
      throw new Fault('not_found', `machine ${param(c, 'id')} has no metadata ${param(c, 'key')}`)
    }
    return c.json({ value })
  })
  api.post(`${path}/:key`, async (c) => {
    const app = await appOf(c, 'write')
    const { value } = await bodyOf(c, textValueSchema)
    const pair = { key: param(c, 'key'), value }
    await setMachineMetadata(c.var.ctx, app, param(c, 'id'), pair, actor(c))
    return c.body(null, 204)
  })
  api.delete(`${path}/:key`, async (c) => {
    const app = await appOf(c, 'write')
    const pair = { key: param(c, 'key'), value: null }
    await setMachineMetadata(c.var.ctx, app, param(c, 'id'), pair, actor(c))
    return c.body(null, 204)
  })
}
