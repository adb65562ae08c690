import { messageOf } from '#core/fault.ts'
import { callJson } from '#sys/http-client.ts'
import type { ControlContext } from '../context.ts'

/** Two heartbeats. */
const silentMs = 2_000
const probeTimeoutMs = 1_500
const roundMs = 250

/**
 * Asks each host that is silent on the bus directly, one question at a time, until it says something again: who does not
 * answer is lost, and from then on nobody waits for it. So a hang is known within 4 s, and the end of one within 2 s; with
 * the bus down, hosts that answer stay known. Resolves when control stops.
 */
export async function watchHosts(ctx: ControlContext): Promise<void> {
  const asking = new Set<string>()
  const { hosts, log, clock } = ctx
  const ask = async (id: string, api: string) => {
    asking.add(id)
    try {
      await callJson(api, {
        method: 'GET',
        path: '/v1/host',
        headers: { authorization: `Bearer ${ctx.clusterKey}` },
        timeoutMs: probeTimeoutMs,
        ownConnection: true,
      })
      if (hosts.pulse.lost(id)) log.info({ host: id }, 'host answers again')
      hosts.pulse.alive(id)
    } catch (error) {
      if (hosts.pulse.silentMs(id) < silentMs) return
      if (!hosts.pulse.lost(id)) {
        log.warn({ host: id, error: messageOf(error) }, 'host is lost; nobody waits for it')
      }
      hosts.pulse.missed(id)
      await clock.sleep(silentMs - probeTimeoutMs, ctx.stopping).catch(() => {})
    } finally {
      asking.delete(id)
    }
  }
  while (!ctx.stopping.aborted) {
    for (const { row } of hosts.list()) {
      if (asking.has(row.host) || hosts.pulse.silentMs(row.host) < silentMs) continue
      void ask(row.host, row.api)
    }
    hosts.pulse.cutLost()
    await clock.sleep(roundMs, ctx.stopping).catch(() => {})
  }
}
