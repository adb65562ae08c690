import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFault } from '#core/fault.ts'
import { machineStates, settledStates, type MachineState } from '#spec/machine.ts'
import { newLife, step, workOf, type Life, type LifeEvent } from './machine-life.ts'

const halt = { signal: 'SIGINT', timeoutMs: 5000, drain: true }
const events: LifeEvent[] = [
  { type: 'start' },
  { type: 'start', revive: true },
  { type: 'park' },
  { type: 'ran' },
  { type: 'launch_failed' },
  { type: 'launch_postponed', retryInMs: 500 },
  { type: 'resume_failed' },
  { type: 'halted' },
  { type: 'halt_failed' },
  { type: 'halt_postponed' },
  { type: 'suspend' },
  { type: 'suspended' },
  { type: 'suspend_failed', halt },
  { type: 'stop', halt },
  { type: 'stop', halt, withHost: true },
  { type: 'restart', halt },
  { type: 'exited', restartInMs: null },
  { type: 'exited', restartInMs: 500 },
  { type: 'update', halt, launch: true, newRoot: true },
  { type: 'update', halt, launch: false, newRoot: false },
  { type: 'destroy' },
  { type: 'kill' },
  { type: 'removed' },
]

/** MCH-12, with the additions that the life's own comment names. */
const observable: Record<MachineState, MachineState[]> = {
  created: ['starting', 'stopping', 'destroying', 'updating', 'stopped'],
  starting: ['started', 'failed', 'destroying', 'suspended', 'restarting'],
  started: ['stopping', 'suspending', 'restarting', 'destroying', 'updating'],
  stopping: ['stopped', 'failed', 'destroying'],
  stopped: ['starting', 'destroying', 'updating'],
  suspending: ['suspended', 'stopping', 'destroying'],
  suspended: ['starting', 'stopping', 'destroying', 'updating'],
  restarting: ['restarting', 'starting', 'stopping', 'updating', 'failed', 'destroying'],
  updating: ['starting', 'stopped', 'failed', 'destroying'],
  failed: ['starting', 'stopping', 'destroying', 'updating'],
  destroying: ['destroyed'],
  destroyed: [],
}

const ends = new Set<string>(['kill', 'destroy'])

function isLegal(life: Life, event: LifeEvent): boolean {
  try {
    step(life, event, 0)
    return true
  } catch {
    return false
  }
}

test('no sequence of events shows a transition outside MCH-12, and illegal events change nothing', () => {
  const seen = new Set<MachineState>()
  fc.assert(
    fc.property(
      fc.constantFrom('start' as const, 'rest' as const),
      fc.array(fc.nat(10_000), { maxLength: 60 }),
      (after, picks) => {
        let life = newLife(after)
        for (const pick of picks) {
          // Mostly legal events that do not end it all, so that the walk gets far, and some of any kind.
          const legal = events.filter((event) => isLegal(life, event) && !ends.has(event.type))
          const from = pick % 8 === 0 || legal.length === 0 ? events : legal
          const event = from[Math.floor(pick / 8) % from.length] as LifeEvent
          try {
            const next = step(life, event, 1000)
            assert.ok(
              observable[life.state].includes(next.life.state),
              `${life.state} → ${next.life.state}`,
            )
            if (life.state === 'starting' && next.life.state === 'suspended') {
              assert.ok(life.resume, 'only what was suspended is so again')
            }
            if (life.state === 'starting' && next.life.state === 'restarting') {
              assert.ok(life.revival, 'only what its policy started is tried again')
            }
            const work = next.effects.filter((effect) => effect.type === 'work')
            assert.equal(work.length, settledStates.includes(next.life.state) ? 0 : 1)
            assert.equal(work[0]?.work, workOf(next.life.state))
            life = next.life
            seen.add(life.state)
          } catch (error) {
            assert.ok(isFault(error, 'precondition_failed'), String(error))
          }
        }
      },
    ),
    { numRuns: 2000 },
  )
  assert.deepEqual(
    [...seen].sort(),
    machineStates.filter((state) => state !== 'created').sort(),
    'the run reached every state',
  )
})

test('the outcome of a halt follows what was recorded before it', () => {
  const started = { ...newLife('start'), state: 'started' as const }
  const updating = step(started, { type: 'update', halt, launch: true, newRoot: true }, 0).life
  assert.equal(updating.returning, true)
  assert.equal(step(updating, { type: 'halted' }, 0).life.state, 'starting')
  const parked = step(started, { type: 'update', halt, launch: false, newRoot: false }, 0).life
  assert.equal(step(parked, { type: 'halted' }, 0).life.state, 'stopped')
})

test('a restart by policy keeps its moment, and a stop during the wait is sticky', () => {
  const started = { ...newLife('start'), state: 'started' as const }
  const waiting = step(started, { type: 'exited', restartInMs: 700 }, 1000).life
  assert.equal(waiting.state, 'restarting')
  assert.equal(waiting.startAt, 1700)
  const stopped = step(step(waiting, { type: 'stop', halt }, 0).life, { type: 'halted' }, 0).life
  assert.deepEqual([stopped.state, stopped.startAt, stopped.returning], ['stopped', null, false])
})

test('MCH-65: an update that ends the root is remembered until something of it has run', () => {
  const started = { ...newLife('start'), state: 'started' as const }
  const parked = { halt, launch: false }
  const ended = step(started, { type: 'update', ...parked, newRoot: true }, 0).life
  const stopped = step(ended, { type: 'halted' }, 0).life
  const again = step(stopped, { type: 'update', ...parked, newRoot: false }, 0).life
  const starting = step(step(again, { type: 'halted' }, 0).life, { type: 'start' }, 0).life
  const failed = step(starting, { type: 'launch_failed' }, 0).life
  assert.deepEqual([starting.newRoot, failed.newRoot], [true, true])
  assert.equal(step(starting, { type: 'ran' }, 0).life.newRoot, false)
})

test('a suspended machine resumes, a stopped one boots', () => {
  const suspended = { ...newLife('rest'), state: 'suspended' as const }
  assert.equal(step(suspended, { type: 'start' }, 0).life.resume, true)
  const stopped = { ...newLife('rest'), state: 'stopped' as const }
  assert.equal(step(stopped, { type: 'start' }, 0).life.resume, false)
})

test('a resume that failed leaves a suspended machine, which resumes at its next start', () => {
  const suspended = { ...newLife('rest'), state: 'suspended' as const }
  const starting = step(suspended, { type: 'start' }, 0).life
  const again = step(starting, { type: 'resume_failed' }, 0).life
  assert.equal(again.state, 'suspended')
  assert.equal(step(again, { type: 'start' }, 0).life.resume, true)
})

test('a start by policy is postponed as often as it fails, one that somebody asked for is not', () => {
  const postponed = { type: 'launch_postponed', retryInMs: 700 } as const
  const started = { ...newLife('start'), state: 'started' as const }
  let life = step(started, { type: 'exited', restartInMs: 0 }, 0).life
  for (let failures = 1; failures < 4; failures++) {
    life = step(step(life, { type: 'halted' }, 0).life, postponed, 1000).life
    assert.deepEqual([life.state, life.startAt, life.revival], ['restarting', 1700, { failures }])
  }
  assert.equal(step(step(life, { type: 'halted' }, 0).life, { type: 'ran' }, 0).life.revival, null)
  const stopped = step(step(life, { type: 'stop', halt }, 0).life, { type: 'halted' }, 0).life
  const asked = step(step(stopped, { type: 'start' }, 0).life, postponed, 0).life
  assert.equal(asked.state, 'failed')
})
