import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isMachineOf, strayMachines } from './strays.ts'

test('a process of a machine is known by its group, and none of another host', () => {
  const cases: [string, boolean][] = [
    ['0::/hangar-ord1-ab/x1', true],
    ['0::/hangar-ord1-ab-vm/x1', true],
    ['0::/hangar-ord1-ab/x1/made/inside', true],
    ['12:pids:/\n5:memory:/system/hangar-ord1-ab-vm/x1\n0::/', true],
    ['0::/../../hangar-ord1-ab/x1', true],
    ['0::/hangar-ord1-ab', false],
    ['0::/hangar-ord1-abc/x1', false],
    ['0::/hangar-ord1-ab-vm2/x1', false],
    ['0::/hangar-ord1-ab-probe-7-vm/x1', false],
    ['0::/user.slice', false],
    ['', false],
  ]
  for (const [groups, wanted] of cases) assert.equal(isMachineOf('ord1-ab', groups), wanted, groups)
})

test('nobody is a machine of a host that is none', () => {
  assert.deepEqual(strayMachines({ id: `nowhere-${process.pid}` }), [])
})
