import { isFault, messageOf } from '#core/fault.ts'
import type { ExitRecord } from '#host/runtime/index.ts'
import { announce, apply, type Agent, type NewEvent, type Run } from './agent.ts'
import { Health } from './checks/index.ts'
import { exitEvent, exitLine } from './exit-words.ts'
import { decideRestart } from './restart-policy.ts'
import type { MachineRecord } from './store/index.ts'

/** Does the work that follows an exit; inside the machine's queue. */
type GoOn = (agent: Agent, id: string) => Promise<void>

/**
 * Begins to look after a process that runs, one that was just started or one that was found: its health, and its end.
 * What ended meanwhile is told at once.
 */
export function superviseRun(agent: Agent, record: MachineRecord, goOn: GoOn): void {
  endRun(agent, record.id)
  const { id } = record
  const health = new Health({
    config: record.config,
    address: record.ip4,
    clock: agent.clock,
    wasReady: record.ready,
    onChange: () => noteReadiness(agent, id),
    warn: (message) => agent.spool.say(id, { provider: 'runner', level: 'warn', message }),
  })
  const run: Run = { instanceId: record.instanceId, health }
  agent.runs.set(id, run)
  // A machine without checks and services is ready at once.
  noteReadiness(agent, id)
  agent.driver.exited(id).then(
    (exit) => {
      const job = async () => {
        if (noteExit(agent, id, run, exit)) await goOn(agent, id)
      }
      agent.queue.push(id, job).catch(logFailure)
    },
    (error) => {
      if (isFault(error, 'not_found')) return // Cleared up before we asked: its end is told there.
      logFailure(error)
    },
  )
  function logFailure(error: unknown): void {
    if (agent.mode === 'closed') return
    agent.log.error({ machine: id, error: messageOf(error) }, 'lost sight of a machine')
  }
}

export function endRun(agent: Agent, id: string): void {
  agent.runs.get(id)?.health.stop()
  agent.runs.delete(id)
}

/** Takes over what the checks say: into the row first, because requests may be waiting, then onto the disk. */
export function noteReadiness(agent: Agent, id: string): void {
  const record = agent.store.machines.find(id)
  const run = agent.runs.get(id)
  if (!record || !run || agent.mode === 'closed' || record.life.state !== 'started') return
  const { ready } = run.health
  if (ready !== record.ready) {
    record.ready = ready
    if (ready) record.life = { ...record.life, returning: false }
    announce(agent, record)
    setImmediate(() => keepReadiness(agent, id))
  }
  agent.changes.notify(id)
}

function keepReadiness(agent: Agent, id: string): void {
  if (agent.mode === 'closed') return
  try {
    agent.store.transaction(() => agent.store.machines.save(agent.store.machines.get(id)), 'crash')
  } catch (error) {
    // The next write of the machine keeps it; until then only a crash would make its checks begin from nothing.
    agent.log.error({ machine: id, error: messageOf(error) }, 'could not write down a machine')
  }
}

/**
 * A machine that ended by itself: its restart policy decides (MCH-75). False when there is nothing to tell, because a stop
 * that was asked for tells it.
 */
function noteExit(agent: Agent, id: string, run: Run, exit: ExitRecord): boolean {
  const record = agent.store.machines.find(id)
  if (!record || record.life.state !== 'started' || agent.runs.get(id) !== run) return false
  if (agent.mode !== 'open') return false
  endRun(agent, id)
  const { restarts } = record
  const now = agent.clock.now()
  const decision = decideRestart(record.config, exit, restarts, now, agent.random())
  agent.spool.say(id, { provider: 'runner', message: exitLine(exit) })
  if (exit.oomKilled) sayOutOfMemory(agent, record)
  apply(
    agent,
    record,
    { type: 'exited', restartInMs: decision.restart ? decision.delayMs : null },
    {
      patch: { restarts: decision.history },
      events: [
        exitNews(exit, {
          requestedStop: false,
          restarting: decision.restart,
          restartCount: decision.history.length,
        }),
      ],
    },
  )
  return true
}

function sayOutOfMemory(agent: Agent, record: MachineRecord): void {
  const message = `Out of memory: a process of the machine was killed; give it more memory (now ${record.config.guest?.memory_mb ?? 256} MB)`
  agent.spool.say(record.id, { provider: 'runner', level: 'error', message })
}

export function exitNews(
  exit: ExitRecord,
  why: { requestedStop: boolean; restarting: boolean; restartCount: number },
): NewEvent {
  const exit_event = exitEvent(exit, why)
  return {
    type: 'exit',
    status: 'stopped',
    source: 'flyd',
    request: { exit_event, MonitorEvent: { exit_event }, restart_count: why.restartCount },
  }
}
