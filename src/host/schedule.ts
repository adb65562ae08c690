import { createHash } from 'node:crypto'
import { isFault, messageOf } from '#core/fault.ts'
import { commit, type Agent } from './agent.ts'
import type { MachineRecord } from './store/index.ts'
import { startMachine } from './verbs.ts'
import { told } from './told.ts'

const everyMs = 5_000
const hourMs = 3_600_000

/** Starts scheduled machines when their time has come (MCH-78), until the returned function is called. */
export function startSchedule(agent: Agent): () => void {
  const timer = setInterval(() => {
    runDue(agent).catch((error: unknown) => {
      if (agent.mode === 'open') agent.log.error({ error: messageOf(error) }, 'the schedule failed')
    })
  }, everyMs)
  return () => clearInterval(timer)
}

/**
 * One look at all scheduled machines. A machine's next time is written down before it is started, so that a crash in between
 * loses a run rather than repeating it; a time that passed while the host was away is made up for once.
 */
export async function runDue(agent: Agent): Promise<void> {
  if (agent.mode !== 'open') return
  for (const record of agent.store.machines.all()) {
    const { schedule } = record.config
    if (!schedule || record.destroyedAt !== null) continue
    const now = agent.clock.now()
    if (record.nextRun?.schedule !== schedule) {
      // It ran when it was made, or was told to at once: the next time is in the next period.
      plan(agent, record, schedule, now)
    } else if (record.nextRun.at <= now && !isLeased(agent, record.id, now)) {
      await runOnce(agent, plan(agent, record, schedule, now))
    }
  }
}

function plan(agent: Agent, record: MachineRecord, schedule: string, now: number): MachineRecord {
  return commit(agent, record, {
    patch: { nextRun: { schedule, at: nextRunAt(schedule, record.id, now) } },
  })
}

/** Whoever holds the lease is changing the machine: its run waits until that is over. */
function isLeased(agent: Agent, id: string, now: number): boolean {
  return (agent.store.leases.find(id)?.expiresAt ?? 0) > now
}

const atRest: readonly string[] = ['stopped', 'failed']

/** A run that is still going when the next is due counts as that one too. */
async function runOnce(agent: Agent, { id, life, config }: MachineRecord): Promise<void> {
  if (!atRest.includes(life.state)) return
  agent.spool.say(id, { provider: 'runner', message: `Starting, as ${config.schedule} scheduled` })
  try {
    await startMachine(agent, id, { source: 'flyd' })
  } catch (error) {
    // MCH-78: a run without room for it is an error and is not made up for.
    const why = told(agent, error)
    const message = `The scheduled start failed: ${why}`
    agent.spool.say(id, { provider: 'runner', level: 'error', message })
    if (!isFault(error)) agent.log.error({ machine: id, error: messageOf(error) }, message)
    const record = agent.store.machines.find(id)
    if (!record || record.destroyedAt !== null || agent.mode !== 'open') return
    const request = { error: why }
    commit(agent, record, {
      patch: { lastError: why },
      events: [{ type: 'start', status: 'failed', source: 'flyd', request }],
    })
  }
}

/**
 * The next moment for a machine, in milliseconds since the epoch: in the period of UTC after the one of `now`, always the
 * same share of the period after its beginning, which differs from machine to machine. Weeks begin on Monday.
 */
export function nextRunAt(schedule: string, id: string, now: number): number {
  const begin = periodAfter(schedule, now)
  return begin + Math.floor(shareOf(id) * (periodAfter(schedule, begin) - begin))
}

/** When the period after the one of `now` begins. */
function periodAfter(schedule: string, now: number): number {
  const date = new Date(now)
  const [year, month, day] = [date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDate()]
  if (schedule === 'hourly') return Math.floor(now / hourMs + 1) * hourMs
  if (schedule === 'daily') return Date.UTC(year, month, day + 1)
  if (schedule === 'weekly') return Date.UTC(year, month, day + 7 - ((date.getUTCDay() + 6) % 7))
  return Date.UTC(year, month + 1, 1)
}

/** In [0, 1), from the machine's id alone, so that a host that starts again chooses the same. */
function shareOf(id: string): number {
  return createHash('sha256').update(id).digest().readUInt32BE(0) / 2 ** 32
}
