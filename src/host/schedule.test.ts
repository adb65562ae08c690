import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { createTestMachine, openTestHost, type TestHost } from './testing.ts'
import { nextRunAt, runDue } from './schedule.ts'

const hourMs = 3_600_000

test('MCH-78: once in each period, whatever the moment it is reckoned from', () => {
  const schedules = ['hourly', 'daily', 'weekly', 'monthly']
  const periodOf = (schedule: string, at: number): string => {
    const date = new Date(at)
    if (schedule === 'hourly') return date.toISOString().slice(0, 13)
    if (schedule === 'daily') return date.toISOString().slice(0, 10)
    if (schedule === 'monthly') return date.toISOString().slice(0, 7)
    // 1970 began on a Thursday.
    return String(Math.floor((at / hourMs / 24 + 3) / 7))
  }
  fc.assert(
    fc.property(
      fc.constantFrom(...schedules),
      fc.string({ minLength: 14, maxLength: 14 }),
      fc.integer({ min: 0, max: 4_000_000_000_000 }),
      (schedule, id, now) => {
        const first = nextRunAt(schedule, id, now)
        const second = nextRunAt(schedule, id, first)
        assert.ok(now < first && first < second)
        assert.notEqual(periodOf(schedule, first), periodOf(schedule, now))
        assert.notEqual(periodOf(schedule, second), periodOf(schedule, first))
        const longestMs = (schedule === 'monthly' ? 62 : 14) * 24 * hourMs
        assert.ok(second - first < longestMs)
      },
    ),
  )
  const at = new Set(Array.from({ length: 50 }, (_, n) => nextRunAt('hourly', `m${n}`, 0)))
  assert.ok(at.size > 45, 'machines do not all start at once')
})

const runs = async (host: TestHost, id: string): Promise<number> => {
  const { events } = await host.call('GET', `/v1/machines/${id}`)
  return events.filter(({ type, status }) => type === 'start' && status === 'starting').length
}
const later = (host: TestHost, ms: number) => {
  const clock = host.agent.clock
  host.agent.clock = { ...clock, now: () => clock.now() + ms }
}

test('MCH-78: it runs when its time has come, once, also over a restart of the host', async (t) => {
  const host = await openTestHost(t)
  const { id } = await createTestMachine(host, { schedule: 'hourly' })
  await runDue(host.agent)
  host.driver.finish(id)
  await host.call('GET', `/v1/machines/${id}/wait?state=stopped&timeout=60`)
  await runDue(host.agent)
  assert.equal(await runs(host, id), 0, 'not before its time')
  const again = await host.reopen()
  later(again, 2 * hourMs)
  await runDue(again.agent)
  await again.call('GET', `/v1/machines/${id}/wait?state=started&timeout=60`)
  assert.equal(await runs(again, id), 1)
  again.driver.finish(id)
  await again.call('GET', `/v1/machines/${id}/wait?state=stopped&timeout=60`)
  await runDue(again.agent)
  const third = await again.reopen()
  later(third, 2 * hourMs)
  await runDue(third.agent)
  assert.equal(await runs(third, id), 1, 'not twice in its period')
})

test('MCH-78: a run without room for it is an error; one that still goes on, or is leased, is not started', async (t) => {
  const host = await openTestHost(t)
  const { id } = await createTestMachine(host, { schedule: 'daily' })
  await runDue(host.agent)
  later(host, 48 * hourMs)
  await runDue(host.agent)
  assert.equal(await runs(host, id), 0, 'it still runs')
  host.driver.finish(id)
  await host.call('GET', `/v1/machines/${id}/wait?state=stopped&timeout=60`)
  const { capacity } = host.agent.host
  host.agent.host.capacity = { ...capacity, memory_mb: 1 }
  later(host, 48 * hourMs)
  await runDue(host.agent)
  const failed = await host.call('GET', `/v1/machines/${id}`)
  assert.deepEqual([failed.state, failed.events[0]?.status], ['stopped', 'failed'])
  host.agent.host.capacity = capacity
  await runDue(host.agent)
  assert.equal(await runs(host, id), 0, 'it is not made up for')
  later(host, 48 * hourMs)
  await host.call('POST', `/v1/machines/${id}/lease?ttl=60`)
  await runDue(host.agent)
  assert.equal(await runs(host, id), 0, 'somebody is changing it')
  later(host, 61_000)
  await runDue(host.agent)
  assert.equal(await runs(host, id), 1)
})
