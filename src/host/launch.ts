import { isFault, messageOf } from '#core/fault.ts'
import { explainDiskFull } from '#sys/disk-full.ts'
import type { Agent } from './agent.ts'
import { clearUp, prepareAndStart } from './hooks/index.ts'
import { keepsRoot } from './kept-root.ts'
import { revivalDelayMs, slept, type Interrupts, type Outcome } from './piece-of-work.ts'
import { resumeMachine, sayLost, snapshotStands } from './resume.ts'
import { settleRuntime } from './runtime-choice.ts'
import { told } from './told.ts'
import type { MachineRecord } from './store/index.ts'

const startedNews = { type: 'start', status: 'started', source: 'flyd' } as const
const triesMax = 3
const retryMs = 200

/** The work of `starting`: a cold start, or the resume of a suspended machine. */
export async function launch(
  agent: Agent,
  record: MachineRecord,
  { hard }: Interrupts,
): Promise<Outcome | undefined> {
  for (let tries = 1; ; tries++) {
    try {
      const { ip4, resumed } = await launchOnce(agent, record, hard.signal)
      const request = record.life.resume ? { request: { resumed } } : {}
      const events = [{ ...startedNews, ...request }]
      // After a power loss nothing runs, and a machine that is `starting` is simply started: but never again from a new root.
      const durability = record.life.newRoot ? 'power' : 'crash'
      const change = { patch: { ip4, lastError: null }, events, durability } as const
      return { event: { type: 'ran' }, change }
    } catch (cause) {
      if (agent.mode === 'closed') return undefined
      const error = explainDiskFull(cause)
      // What the user's config or image is to blame for stays so; a system under load may have recovered.
      const ours = !isFault(error) || error.whose === 'system'
      if (hard.signal.aborted || !ours || tries >= triesMax) {
        return await launchFailed(agent, record, error)
      }
      agent.log.warn({ machine: record.id, error: messageOf(error) }, 'a start is tried again')
      // What a suspended machine had in memory may still be good.
      if (!record.life.resume) await clearUp(agent, record).catch(() => {}) // Logged there.
      await slept(agent, retryMs * 2 ** tries * (0.5 + agent.random()), hard.signal)
    }
  }
}

/** The machine's IPv4 address once its process runs, and whether it goes on with what it had in memory. */
async function launchOnce(
  agent: Agent,
  record: MachineRecord,
  signal: AbortSignal,
): Promise<{ ip4: string; resumed: boolean }> {
  const { id, index, app } = record
  const { resume } = record.life
  const found = await agent.driver.recover(id)
  // Running, or already over: the start was done before we were interrupted, and is not done twice.
  if (found !== undefined && !resume) {
    const { ip4 } = await agent.net.attach({ id, network: app.network, index })
    return { ip4, resumed: false }
  }
  if (found === 'running') {
    const ip4 = await resumeMachine(agent, record)
    if (ip4 !== undefined) return { ip4, resumed: true }
  } else if (resume) sayLost(agent, record, 'what it had in memory is gone')
  const settled = await settleRuntime(agent, id)
  const { net } = await prepareAndStart(agent, settled, {
    signal,
    keepRoot: keepsRoot(record),
  })
  return { ip4: net?.ip4 ?? record.ip4, resumed: false }
}

/** What is left of a machine that could not be started: its snapshot, another try under its restart policy, or nothing. */
async function launchFailed(agent: Agent, record: MachineRecord, error: unknown): Promise<Outcome> {
  const { id, life } = record
  const why = told(agent, error)
  const userIsToBlame = isFault(error) && error.whose === 'user'
  const revival = userIsToBlame ? null : life.revival
  const isResume = life.resume && (await snapshotStands(agent, id))
  const retryInMs = revival ? revivalDelayMs(agent, revival.failures) : 0
  const next = isResume
    ? '; it is still suspended and has lost nothing: start it again'
    : revival
      ? `; it is tried again in ${Math.ceil(retryInMs / 1000)} s`
      : ''
  agent.log.warn({ machine: id, error: messageOf(error) }, 'a machine could not be started')
  const message = `The machine could not be ${isResume ? 'resumed' : 'started'}: ${why}${next}`
  agent.spool.say(id, { provider: 'runner', level: 'error', message })
  const news = {
    type: 'start',
    status: 'failed',
    source: 'flyd',
    request: { error: `${why}${next}` },
  } as const
  const patch = { lastError: `${why}${next}` }
  if (isResume) return { event: { type: 'resume_failed' }, change: { patch, events: [news] } }
  if (revival) {
    // One event tells of all of them: they may go on for a long time.
    const events = revival.failures === 0 ? [news] : []
    return { event: { type: 'launch_postponed', retryInMs }, change: { patch, events } }
  }
  await clearUp(agent, record).catch(() => {}) // Logged there; it is tried again at the next start.
  return { event: { type: 'launch_failed' }, change: { patch, events: [news] } }
}
