import { messageOf } from '#core/fault.ts'
import type { HostInfo } from '#spec/host-api.ts'
import type { Agent } from './agent.ts'

type Dropped = NonNullable<HostInfo['dropped']>

const everyMs = 30_000
/** A program that looks around sends some; this many between two looks are no accident. */
const sprayPacketsMin = 200
/** The host's own log is no place that a machine can fill. */
const namedAtOnceMax = 5
const namedAgainAfterMs = 600_000
const shownMachinesMax = 20

/** What the looks before found, and which machines were named when. */
export interface DropMemory {
  packets: Map<string, number>
  namedAt: Map<string, number>
}

export const dropMemory = (): DropMemory => ({ packets: new Map(), namedAt: new Map() })

/** Looks from time to time at what the walls around machines dropped, and names those that keep trying. */
export function startDropWatch(agent: Agent): () => void {
  const memory = dropMemory()
  let looking = false
  const look = async () => {
    if (looking) return
    looking = true
    try {
      await lookAtDropped(agent, memory)
    } catch (error) {
      if (agent.mode === 'open') {
        agent.log.warn({ error: messageOf(error) }, 'cannot read what the walls dropped')
      }
    } finally {
      looking = false
    }
  }
  const timer = setInterval(() => void look(), everyMs)
  void look()
  return () => clearInterval(timer)
}

/** Takes the counters of now into what the host says of itself, and writes to its log whoever sprays. */
export async function lookAtDropped(agent: Agent, memory: DropMemory): Promise<void> {
  const { machines, ...dropped } = await agent.net.dropped()
  const packets = new Map(machines)
  // One after the other: each is a process, and nobody waits.
  for (const record of agent.store.machines.all()) {
    if (record.life.state !== 'started') continue
    const more = (await agent.driver.spoofed?.(record.id)) ?? 0
    if (more === 0) continue
    dropped.spoofed += more
    packets.set(record.id, (packets.get(record.id) ?? 0) + more)
  }
  agent.dropped = { ...dropped, machines: mostFirst(packets).slice(0, shownMachinesMax) }
  const sprayed = new Map(
    [...packets].map(([id, count]) => {
      const before = memory.packets.get(id) ?? 0
      // A VM counts from its start.
      return [id, count >= before ? count - before : count]
    }),
  )
  memory.packets = packets
  nameSprayers(agent, memory, mostFirst(sprayed))
}

function nameSprayers(agent: Agent, memory: DropMemory, sprayed: Dropped['machines']): void {
  const now = agent.clock.now()
  for (const [id, at] of memory.namedAt) {
    if (now - at >= namedAgainAfterMs) memory.namedAt.delete(id)
  }
  const many = sprayed.filter(({ packets }) => packets >= sprayPacketsMin)
  const unnamed = many.filter(({ id }) => !memory.namedAt.has(id))
  for (const { id, packets } of unnamed.slice(0, namedAtOnceMax)) {
    memory.namedAt.set(id, now)
    const app = agent.store.machines.find(id)?.app
    agent.log.warn(
      { machine: id, app: app?.name, org: app?.org, packets },
      'a machine sends much that it may not; its walls drop it (hangar m stop ends that)',
    )
  }
}

const mostFirst = (packets: Map<string, number>): Dropped['machines'] =>
  [...packets]
    .map(([id, count]) => ({ id, packets: count }))
    .toSorted((a, b) => b.packets - a.packets)
