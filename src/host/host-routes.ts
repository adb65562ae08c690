import { Readable } from 'node:stream'
import { Hono } from 'hono'
import { stream } from 'hono/streaming'
import { z } from 'zod'
import { Fault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import {
  appSecretsSchema,
  hostSnapshotCreateSchema,
  hostVolumeCreateSchema,
  resolveImageSchema,
  type HostInfo,
} from '#spec/host-api.ts'
import { volumeChangeSchema, volumeExtendSchema } from '#spec/volume.ts'
import type { Agent } from './agent.ts'
import { used } from './capacity.ts'
import { describeRuntime } from './runtime-choice.ts'
import { takeDown } from './down.ts'
import { LogReader } from './logs/index.ts'
import type { MachineRecord } from './store/index.ts'
import { queryNumber, readJson } from './http-input.ts'
import {
  deleteSnapshot,
  listSnapshots,
  readSnapshot,
  requireSnapshot,
  takeSnapshot,
} from './snapshot-verbs.ts'
import { listVolumes, showVolume } from './volume-present.ts'
import { keepVolumes } from './volume-upkeep.ts'
import {
  changeVolume,
  createVolume,
  destroyVolume,
  dropVolume,
  dropVolumesOfApp,
  extendVolume,
  inBackground,
} from './volume-verbs.ts'

const saySchema = z.object({
  instance: z.string(),
  level: z.enum(['info', 'warn', 'error']).default('info'),
  message: z.string().max(limits.logLineBytesMax),
})

const ok = { ok: true } as const

export function hostRoutes(agent: Agent): Hono {
  const routes = new Hono()
  routes.get('/v1/host', (context) => {
    const now = used(agent)
    const info: HostInfo = {
      id: agent.host.id,
      number: agent.host.number,
      region: agent.host.region,
      pid: process.pid,
      ...describeRuntime(agent),
      machines: now.machines,
      ...(agent.dropped ? { dropped: agent.dropped } : {}),
      capacity: agent.host.capacity,
      used: now,
    }
    return context.json(info)
  })
  routes.post('/v1/down', async (context) => {
    await takeDown(agent)
    return context.json(ok)
  })
  routes.post('/v1/images/resolve', async (context) => {
    const { data } = await readJson(context, resolveImageSchema)
    return context.json(await agent.images.resolve(data.image))
  })
  volumes(routes, agent)
  snapshots(routes, agent)
  apps(routes, agent)
  return routes
}

function volumes(routes: Hono, agent: Agent): void {
  routes.post('/v1/volumes', async (context) => {
    const { data } = await readJson(context, hostVolumeCreateSchema)
    return context.json(await createVolume(agent, data))
  })
  routes.get('/v1/volumes', async (context) =>
    context.json(await listVolumes(agent, context.req.query('app') || undefined)),
  )
  routes.get('/v1/volumes/:id', async (context) =>
    context.json(await showVolume(agent, context.req.param('id'))),
  )
  routes.put('/v1/volumes/:id', async (context) => {
    const { data } = await readJson(context, volumeChangeSchema)
    return context.json(await changeVolume(agent, context.req.param('id'), data))
  })
  routes.put('/v1/volumes/:id/extend', async (context) => {
    const { data } = await readJson(context, volumeExtendSchema)
    return context.json(await extendVolume(agent, context.req.param('id'), data.size_gb))
  })
  routes.delete('/v1/volumes/:id', async (context) => {
    const id = context.req.param('id')
    if (context.req.query('now') !== 'true') return context.json(await destroyVolume(agent, id))
    dropVolume(agent, id)
    inBackground(agent, id, () => keepVolumes(agent))
    return context.json(ok)
  })
}

function snapshots(routes: Hono, agent: Agent): void {
  routes.get('/v1/volumes/:id/snapshots', (context) =>
    context.json(listSnapshots(agent, context.req.param('id'))),
  )
  routes.post('/v1/volumes/:id/snapshots', async (context) => {
    const { data } = await readJson(context, hostSnapshotCreateSchema)
    return context.json(takeSnapshot(agent, context.req.param('id'), data))
  })
  routes.get('/v1/snapshots/:id', (context) =>
    context.json(requireSnapshot(agent, context.req.param('id'))),
  )
  routes.delete('/v1/snapshots/:id', (context) => {
    deleteSnapshot(agent, context.req.param('id'))
    return context.json(ok)
  })
  routes.get('/v1/snapshots/:id/data', (context) => {
    const bytes = Readable.toWeb(
      readSnapshot(agent, context.req.param('id')),
    ) as ReadableStream<Uint8Array>
    return context.body(bytes, 200, { 'content-type': 'application/x-tar' })
  })
}

/** The id of an app that is named by its id or name: the newest of that name, as a name may be given again. */
function appIdOf(agent: Agent, app: string): string | undefined {
  let newest: MachineRecord | undefined
  for (const record of agent.store.machines.all()) {
    if (record.app.id === app) return app
    if (record.app.name === app && record.createdAt >= (newest?.createdAt ?? 0)) newest = record
  }
  return newest?.app.id
}

const logLinesDefault = 100

function apps(routes: Hono, agent: Agent): void {
  routes.put('/v1/apps/:app/secrets', async (context) => {
    const { data } = await readJson(context, appSecretsSchema)
    // SEC-8: a host without a machine of the app keeps nothing; a create brings the secrets along.
    const id = appIdOf(agent, context.req.param('app'))
    if (id !== undefined) agent.store.secrets.put(id, data)
    return context.json(ok)
  })
  routes.delete('/v1/apps/:app', (context) => {
    const app = context.req.param('app')
    const id = appIdOf(agent, app)
    if (id !== undefined) agent.store.secrets.remove(id)
    dropVolumesOfApp(agent, app)
    inBackground(agent, app, () => keepVolumes(agent))
    for (const record of agent.store.machines.all()) {
      const ofApp = record.app.id === app || record.app.name === app
      if (ofApp && record.destroyedAt !== null) agent.spool.forget(record.id)
    }
    return context.json(ok)
  })
  routes.get('/v1/apps/:app/logs', (context) => {
    const app = context.req.param('app')
    const instance = context.req.query('instance') || undefined
    const since = context.req.query('since') || undefined
    if (since !== undefined && !/^\d{1,19}$/.test(since)) {
      throw new Fault('bad_request', 'since must be nanoseconds since the epoch, as digits')
    }
    const machines = () =>
      [...agent.store.machines.all()]
        .filter((record) => record.app.id === app || record.app.name === app)
        .filter((record) => instance === undefined || record.id === instance)
        .map((record) => ({ id: record.id, app: record.app.name, region: record.region }))
    const limit = Math.max(0, queryNumber(context, 'limit') ?? logLinesDefault)
    const reader = new LogReader(agent.spool, { machines, since, limit })
    const follow = context.req.query('follow') === 'true'
    context.header('content-type', 'application/x-ndjson')
    return stream(context, async (out) => {
      const end = new AbortController()
      out.onAbort(() => end.abort())
      const lines = follow ? reader.follow(end.signal) : await reader.history()
      for await (const line of lines) await out.write(`${JSON.stringify(line)}\n`)
    })
  })
  routes.post('/v1/apps/:app/logs', async (context) => {
    const { data } = await readJson(context, saySchema)
    const { id } = agent.store.machines.get(data.instance)
    agent.spool.say(id, { provider: 'proxy', level: data.level, message: data.message })
    return context.json(ok)
  })
}
