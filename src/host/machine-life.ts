import { transition, type TransitionTable } from '#core/state-machine.ts'
import type { MachineState } from '#spec/machine.ts'

/**
 * The life of a machine as a table (MCH-12). A transient state has exactly one piece of work; whoever finds a machine in
 * it, after a crash too, does that work again and reports the outcome as the next event. Resting states have none.
 * Beyond MCH-12 a machine that waits for its restart may be stopped or updated, one that is parked after `skip_launch` goes from
 * `created` to `stopped` (CONF-6), and a kill leads from anywhere to `destroying` (MCH-37). What this host is to blame for
 * costs a machine nothing that it had: it goes from `starting` back to `suspended` when only its resume failed, and back
 * to `restarting` when its restart policy wants it to run; there it stays while what is left of it cannot be cleared up.
 * A stop that breaks off a suspend finds the machine still `suspending`.
 */
export type LifeEventName =
  | 'start'
  | 'park'
  | 'ran'
  | 'launch_failed'
  | 'launch_postponed'
  | 'resume_failed'
  | 'stop'
  | 'exit_to_restart'
  | 'exit_to_rest'
  | 'restart'
  | 'update'
  | 'halted_to_start'
  | 'halted_to_rest'
  | 'halt_failed'
  | 'halt_postponed'
  | 'suspend'
  | 'suspended'
  | 'suspend_failed'
  | 'destroy'
  | 'kill'
  | 'removed'

export const lifeTable: TransitionTable<MachineState, LifeEventName> = {
  created: {
    start: 'starting',
    park: 'stopped',
    stop: 'stopping',
    update: 'updating',
    destroy: 'destroying',
    kill: 'destroying',
  },
  starting: {
    ran: 'started',
    launch_failed: 'failed',
    launch_postponed: 'restarting',
    resume_failed: 'suspended',
    kill: 'destroying',
  },
  started: {
    stop: 'stopping',
    exit_to_restart: 'restarting',
    exit_to_rest: 'stopping',
    restart: 'restarting',
    update: 'updating',
    suspend: 'suspending',
    kill: 'destroying',
  },
  stopping: { halted_to_rest: 'stopped', halt_failed: 'failed', kill: 'destroying' },
  stopped: {
    start: 'starting',
    update: 'updating',
    destroy: 'destroying',
    kill: 'destroying',
  },
  suspending: {
    suspended: 'suspended',
    suspend_failed: 'stopping',
    stop: 'stopping',
    kill: 'destroying',
  },
  suspended: {
    start: 'starting',
    stop: 'stopping',
    update: 'updating',
    destroy: 'destroying',
    kill: 'destroying',
  },
  restarting: {
    halted_to_start: 'starting',
    halt_failed: 'failed',
    halt_postponed: 'restarting',
    stop: 'stopping',
    update: 'updating',
    kill: 'destroying',
  },
  updating: {
    halted_to_start: 'starting',
    halted_to_rest: 'stopped',
    halt_failed: 'failed',
    kill: 'destroying',
  },
  failed: {
    start: 'starting',
    stop: 'stopping',
    update: 'updating',
    destroy: 'destroying',
    kill: 'destroying',
  },
  destroying: { removed: 'destroyed' },
  destroyed: {},
}

/** How a running process is brought down. */
export interface Halt {
  signal: string
  timeoutMs: number
  /** Let the edges finish what they have in flight first. */
  drain: boolean
}

/** What is on disk about a machine's life: the state and all that its work needs when it is done again. */
export interface Life {
  state: MachineState
  /** What follows a halt. */
  after: 'start' | 'rest'
  /** How to end the process; null once its end is written down, so that its exit is told once. */
  halt: Halt | null
  /** Thaw what is in memory instead of a cold start. */
  resume: boolean
  /** An update ended the root: the next start builds it anew, though it is one that starts keep. Absent is false. */
  newRoot?: boolean
  /** MCH-42: its snapshot is lost and nothing has run since: the next start keeps its root, whatever its config says. Absent is false. */
  owesRoot?: boolean
  /** The restart waits until then; milliseconds since the epoch. */
  startAt: number | null
  /** In the middle of an update or restart, until it is ready for traffic again. */
  returning: boolean
  /**
   * What starts it is its restart policy, or its host that came back, and not somebody who asked: then it is tried until it
   * works. Counts the launches that failed since, for no fault of the machine's. Absent in what older hosts wrote down.
   */
  revival?: { failures: number } | null
}

export type LifeEvent =
  | { type: 'park' | 'ran' | 'launch_failed' | 'resume_failed' | 'halted' | 'halt_failed' }
  | { type: 'start'; revive?: boolean }
  | { type: 'launch_postponed'; retryInMs: number }
  | { type: 'halt_postponed' }
  | { type: 'suspend' | 'suspended' | 'destroy' | 'kill' | 'removed' }
  /** `withHost`: its host goes down, and what its next start owes it stays owed. */
  | { type: 'stop'; halt: Halt; withHost?: boolean }
  | { type: 'restart' | 'suspend_failed'; halt: Halt }
  | { type: 'exited'; restartInMs: number | null }
  | { type: 'update'; halt: Halt; launch: boolean; newRoot: boolean }

export type Work = 'launch' | 'halt' | 'suspend' | 'remove'
export type Effect = { type: 'work'; work: Work } | { type: 'announce' }

export const newLife = (after: 'start' | 'rest'): Life => ({
  state: 'created',
  after,
  halt: null,
  resume: false,
  startAt: null,
  returning: false,
  revival: null,
})

/** The one piece of work of a state, undefined where the machine rests. */
export function workOf(state: MachineState): Work | undefined {
  if (state === 'starting') return 'launch'
  if (state === 'stopping' || state === 'restarting' || state === 'updating') return 'halt'
  if (state === 'suspending') return 'suspend'
  return state === 'destroying' ? 'remove' : undefined
}

function nameOf(life: Life, event: LifeEvent): LifeEventName {
  if (event.type === 'halted') return life.after === 'start' ? 'halted_to_start' : 'halted_to_rest'
  if (event.type === 'exited')
    return event.restartInMs === null ? 'exit_to_rest' : 'exit_to_restart'
  // Nothing is left to go back to.
  if (event.type === 'resume_failed' && !life.resume) return 'launch_failed'
  if (event.type === 'launch_postponed' && !life.revival) return 'launch_failed'
  if (event.type === 'halt_postponed' && !life.revival) return 'halt_failed'
  return event.type
}

const atOnce: Halt = { signal: 'SIGKILL', timeoutMs: 0, drain: false }
const atRest = {
  after: 'rest',
  resume: false,
  startAt: null,
  returning: false,
  revival: null,
} as const

const failed = {
  returning: false,
  resume: false,
  halt: null,
  startAt: null,
  revival: null,
} as const

const owesRoot = (life: Life): boolean => life.resume || life.owesRoot === true

/** The fields beside the state that an event sets. */
function consequences(life: Life, event: LifeEvent, now: number): Partial<Life> {
  switch (event.type) {
    case 'start':
      return {
        after: 'rest',
        resume: life.state === 'suspended',
        returning: false,
        revival: event.revive ? { failures: 0 } : null,
      }
    case 'stop':
      return {
        ...atRest,
        halt: event.halt,
        owesRoot: event.withHost === true && life.owesRoot === true,
      }
    case 'suspend_failed':
      return { ...atRest, halt: event.halt, owesRoot: false }
    case 'restart':
      return { after: 'start', halt: event.halt, returning: true, startAt: null, revival: null }
    case 'exited':
      return event.restartInMs === null
        ? { after: 'rest', halt: null, returning: false }
        : {
            after: 'start',
            halt: null,
            returning: true,
            startAt: now + event.restartInMs,
            revival: { failures: 0 },
          }
    case 'launch_postponed':
      if (!life.revival) return { ...atRest, halt: null, owesRoot: owesRoot(life) }
      return {
        after: 'start',
        halt: null,
        resume: false,
        owesRoot: owesRoot(life),
        returning: true,
        startAt: now + event.retryInMs,
        revival: { failures: life.revival.failures + 1 },
      }
    case 'update':
      return {
        after: event.launch ? 'start' : 'rest',
        halt: event.halt,
        resume: false,
        newRoot: life.newRoot === true || event.newRoot,
        owesRoot: false,
        startAt: null,
        returning: event.launch,
        revival: null,
      }
    case 'kill':
    case 'destroy':
      return { ...atRest, halt: atOnce }
    case 'launch_failed':
    case 'halt_failed':
      return { ...failed, owesRoot: owesRoot(life) }
    case 'resume_failed':
      return failed
    case 'halt_postponed':
      if (!life.revival) return failed
      return { revival: { failures: life.revival.failures + 1 } }
    case 'halted':
      return { halt: null, startAt: null }
    case 'ran':
      return { resume: false, newRoot: false, owesRoot: false, revival: null }
    default:
      return {}
  }
}

/**
 * The next life and what must be done for it. Pure; `now` is milliseconds since the epoch.
 * @throws Fault `precondition_failed` for an event that is not legal in the present state
 */
export function step(
  life: Life,
  event: LifeEvent,
  now: number,
  what = 'the machine',
): { life: Life; effects: Effect[] } {
  const state = transition(lifeTable, what, life.state, nameOf(life, event))
  const next: Life = { ...life, ...consequences(life, event, now), state }
  const work = workOf(state)
  const effects: Effect[] = [{ type: 'announce' }]
  if (work) effects.push({ type: 'work', work })
  return { life: next, effects }
}
