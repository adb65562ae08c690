import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { systemClock } from '#core/clock.ts'
import { findCgroups } from '#sys/cgroup.ts'
import { isMachineOf, removeGroups, runsInGroup, strayMachines } from './strays.ts'

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
  // A shell would ask, so the child ends only when its parent is none any more.
  const dies = "sh -c 'until grep -q sleep /proc/$PPID/comm; do :; done'"
  const child = spawn('sh', ['-c', `${dies} & echo $!; exec sleep 60`])
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

test('the groups of a host that was killed are removed, but for one that something runs in', async () => {
  const { version, mount, controllers } = findCgroups()
  const trees = version === 2 ? [mount] : controllers.map((name) => join(mount, name))
  const id = `killed-${process.pid}`
  const groups = ['', '-vm'].flatMap((kind) => trees.map((at) => join(at, `hangar-${id}${kind}`)))
  for (const group of groups) mkdirSync(join(group, 'x1'), { recursive: true })
  const child = spawn('sleep', ['60'])
  const [busy = ''] = groups
  try {
    writeFileSync(join(busy, 'x1/cgroup.procs'), String(child.pid))
    removeGroups({ id })
    assert.deepEqual(
      groups.filter((group) => existsSync(group)),
      [busy],
    )
    assert.ok(existsSync(join(busy, 'x1')))
  } finally {
    child.kill('SIGKILL')
    await once(child, 'exit')
  }
  removeGroups({ id })
  assert.ok(!existsSync(busy))
})
