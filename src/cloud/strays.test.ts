import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { systemClock } from '#core/clock.ts'
import { isMachineOf, runsInGroup, strayMachines } from './strays.ts'

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

test('a process that is dead and not yet asked about is no machine', async () => {
  const child = spawn('sh', ['-c', 'sh -c "exit 0" & echo $!; exec sleep 60'])
  try {
    const [said] = (await once(child.stdout, 'data')) as [Buffer]
    const pid = Number(said.toString())
    const state = () => /State:\s+(\w)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
    while (state() !== 'Z') await systemClock.sleep(5)
    assert.equal(
      runsInGroup(pid, () => true),
      false,
    )
    assert.equal(
      runsInGroup(process.pid, () => true),
      true,
    )
  } finally {
    child.kill('SIGKILL')
  }
})
