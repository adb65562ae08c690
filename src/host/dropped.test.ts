import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { HostInfo } from '#spec/host-api.ts'
import { dropMemory, lookAtDropped } from './dropped.ts'
import { createTestMachine, openTestHost } from './testing.ts'

test('what the walls drop is in the host’s word of itself, and who sprays is named, now and then', async (t) => {
  const host = await openTestHost(t)
  const [quiet, loud] = [await createTestMachine(host), await createTestMachine(host)]
  const counters = { spoofed: 1, to_host: 2, to_machines: 3, foreign: 4 }
  const named: unknown[] = []
  const { agent } = host
  agent.log = { ...agent.log, warn: (about: object) => void named.push(about) } as typeof agent.log
  const memory = dropMemory()
  let now = 0
  agent.clock = { ...agent.clock, now: () => now }
  const look = async (packets: number, spoofed = 0) => {
    agent.net.dropped = async () => ({
      ...counters,
      machines: new Map([
        [quiet.id, 10],
        [loud.id, packets],
      ]),
    })
    agent.driver.spoofed = async (id) => (id === loud.id ? spoofed : 0)
    await lookAtDropped(agent, memory)
  }
  assert.equal((await host.call<HostInfo>('GET', '/v1/host')).dropped, undefined)
  await look(100)
  assert.deepEqual(named, [])
  await look(10_000, 50)
  const about = { machine: loud.id, app: 'web', org: 'personal', packets: 9_950 }
  assert.deepEqual(named, [about])
  assert.deepEqual((await host.call<HostInfo>('GET', '/v1/host')).dropped, {
    ...counters,
    spoofed: 51,
    machines: [
      { id: loud.id, packets: 10_050 },
      { id: quiet.id, packets: 10 },
    ],
  })
  for (let packets = 20_000; packets <= 50_000; packets += 10_000) await look(packets, 50)
  assert.deepEqual(named, [about], 'named again only after a while')
  now = 600_000
  await look(60_000, 50)
  assert.equal(named.length, 2)
  // It was started again, and its counters with it.
  now = 1_200_000
  await look(300)
  assert.equal(named.length, 3)
})

test('many sprayers at once are not more words than a few', async (t) => {
  const host = await openTestHost(t)
  let words = 0
  host.agent.log = { ...host.agent.log, warn: () => void words++ } as typeof host.agent.log
  const machines = new Map(Array.from({ length: 500 }, (_, i) => [`machine${i}`, 1_000]))
  const none = { spoofed: 0, to_host: 0, to_machines: 0, foreign: 0 }
  host.agent.net.dropped = async () => ({ ...none, machines })
  await lookAtDropped(host.agent, dropMemory())
  assert.equal(words, 5)
  assert.equal(host.agent.dropped?.machines.length, 20)
})
