import { Fault, isFault, messageOf } from '#core/fault.ts'
import type { HostVolumeCreate } from '#spec/host-api.ts'
import type { Snapshot } from '#spec/volume.ts'
import {
  callJson,
  faultFromAnswer,
  httpRequest,
  readBody,
  type HttpRequest,
} from '#sys/http-client.ts'
import type { DiskStream, VolumeContent } from '#host/volume/index.ts'
import type { Agent } from './agent.ts'
import { saveVolume } from './volume-present.ts'
import { told } from './told.ts'

type Source = NonNullable<HostVolumeCreate['source']>

const retryFirstMs = 500
const retryMaxMs = 60_000
/** A source that sends nothing for so long is given up, and asked again later. */
const silenceMsMax = 60_000
const pollMs = 250

/** Fills a volume from its source, behind the answer; a source that is away is asked again until the volume is destroyed. */
export function beginFill(agent: Agent, id: string): void {
  if (agent.fills.has(id)) return
  const stop = new AbortController()
  agent.fills.set(id, stop)
  agent.background
    .push(id, () => fill(agent, id, stop.signal))
    .catch((error: unknown) => {
      if (agent.mode === 'closed') return
      agent.log.error({ volume: id, error: messageOf(error) }, 'the filling of a volume failed')
    })
    .finally(() => agent.fills.delete(id))
}

async function fill(agent: Agent, id: string, signal: AbortSignal): Promise<void> {
  for (let tries = 0; ; tries++) {
    if (agent.mode === 'closed' || signal.aborted) return
    const { volume, source } = agent.store.volumes.get(id)
    if (!source) return
    try {
      const from = contentOf(agent, id, source)
      await agent.volumes.fillFrom({ id, sizeGb: volume.size_gb, from }, signal)
      if (!isClosed(agent)) filled(agent, id)
      await forgetTransfer(agent, id, source)
      return
    } catch (error) {
      if (isClosed(agent) || signal.aborted) return
      // What the request is to blame for stays so; a host that is away or a disk that is full may be well again.
      const hopeless = isFault(error) && error.whose === 'user' && error.code !== 'conflict'
      const record = agent.store.volumes.get(id)
      const next = hopeless
        ? 'destroy it and make another'
        : 'it is tried again; destroy it to give up'
      const words = `could not be filled from ${source.kind} ${source.id}: ${told(agent, error)}; ${next}`
      saveVolume(agent, { ...record, hopeless, volume: { ...record.volume, error: words } })
      agent.log.warn({ volume: id, hopeless, error: messageOf(error) }, 'a volume is not filled')
      if (hopeless) return
      const waitMs = Math.min(retryFirstMs * 2 ** tries, retryMaxMs) * (0.5 + agent.random())
      await agent.clock.sleep(waitMs, signal).catch(() => {}) // Destroyed meanwhile: seen above.
    }
  }
}

const isClosed = (agent: Agent): boolean => agent.mode === 'closed'

function filled(agent: Agent, id: string): void {
  const { source: _, hopeless: __, ...record } = agent.store.volumes.get(id)
  if (record.destroyAt !== null) return
  const { error: ___, ...volume } = record.volume
  saveVolume(agent, { ...record, volume: { ...volume, state: 'created' } })
}

/** From a disk of this host by a copy, else by a stream. */
function contentOf(agent: Agent, id: string, source: Source): VolumeContent {
  const here =
    source.kind === 'snapshot'
      ? agent.store.snapshots.find(source.id)
      : agent.store.volumes.find(source.id)
  if (here) return { kind: source.kind, id: source.id }
  if (source.host_api === agent.host.api) {
    throw new Fault('not_found', `${source.kind} ${source.id} is not on this host any more`)
  }
  return { kind: 'stream', open: (signal) => openRemote(agent, id, { source, signal }) }
}

/** The source's host keeps it under this name until we have it: asked for again, it is the same one. */
const transferIdOf = (volume: string): string => `${volume}-transfer`

const ask = (agent: Agent, request: HttpRequest): HttpRequest => ({
  timeoutMs: silenceMsMax,
  ...request,
  headers: { authorization: `Bearer ${agent.clusterKey}` },
})

async function openRemote(
  agent: Agent,
  volume: string,
  { source, signal }: { source: Source; signal: AbortSignal },
): Promise<DiskStream> {
  const target = source.host_api
  const id = source.kind === 'snapshot' ? source.id : transferIdOf(volume)
  const path = `/v1/snapshots/${id}`
  if (source.kind === 'volume') {
    const take = { method: 'POST', path: `/v1/volumes/${source.id}/snapshots` }
    const body = { id, transfer: true }
    await callJson<Snapshot>(target, ask(agent, { ...take, body, signal }))
  }
  for (;;) {
    const snapshot = await callJson<Snapshot>(target, ask(agent, { method: 'GET', path, signal }))
    if (snapshot.status === 'created' || snapshot.status === 'failed') {
      const request = { method: 'GET', path: `${path}/data`, signal, ownConnection: true }
      const answer = await httpRequest(target, ask(agent, request))
      if (answer.status === 200) {
        return { body: answer.body, digest: snapshot.digest, bytes: snapshot.size }
      }
      const text = (await readBody(answer.body, 64 * 1024)).toString()
      // If there is a next try, it takes a new one.
      if (snapshot.status === 'failed') await forgetTransfer(agent, volume, source)
      throw faultFromAnswer(answer.status, text, `GET ${path}/data`)
    }
    await agent.clock.sleep(pollMs, signal)
  }
}

/** One that is left is removed by its host when its time has come. */
async function forgetTransfer(agent: Agent, volume: string, source: Source): Promise<void> {
  if (source.kind !== 'volume' || agent.store.volumes.find(source.id)) return
  const path = `/v1/snapshots/${transferIdOf(volume)}`
  await callJson(source.host_api, ask(agent, { method: 'DELETE', path })).catch((error: unknown) =>
    agent.log.warn({ volume, error: messageOf(error) }, 'a transfer is left on its host'),
  )
}
