import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Agent } from './agent.ts'
import { imagesToKeep } from './images-to-keep.ts'
import type { MachineRecord } from './store/index.ts'

const machine = (digest: string, state: string, changedAt: number, destroyedAt: number | null) =>
  ({ image: { digest }, life: { state }, changedAt, destroyedAt }) as MachineRecord

const keep = (records: MachineRecord[], mode: Agent['mode'] = 'open') =>
  imagesToKeep({
    mode,
    store: { machines: { all: () => records.values() } },
    images: { find: (digest: string) => ({ digest, squashfsPath: `/images/${digest}` }) },
  } as unknown as Agent)

test('images of machines that may start again are kept, the last used first', () => {
  const records = [
    machine('a', 'stopped', 1, null),
    machine('b', 'started', 3, null),
    machine('a', 'failed', 2, null),
    machine('c', 'destroying', 4, null),
    machine('d', 'destroyed', 5, 5),
  ]
  assert.deepEqual(keep(records), ['/images/b', '/images/a'])
  assert.deepEqual(keep(records, 'down'), [])
})

test('only so many', () => {
  const records = Array.from({ length: 100 }, (_, i) => machine(`i${i}`, 'stopped', i, null))
  const kept = keep(records)
  assert.equal(kept.length, 64)
  assert.equal(kept[0], '/images/i99')
})
