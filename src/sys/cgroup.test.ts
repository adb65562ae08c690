import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'node:test'
import {
  countsSwap,
  findCgroups,
  isFrozen,
  oomKills,
  processesOf,
  removeCgroup,
  useOf,
} from './cgroup.ts'

/** The files of version 2, on a kernel that may have version 1. */
test('version 2 is one tree', (t) => {
  const mount = mkdtempSync(join(tmpdir(), 'hangar-cgroup-'))
  t.after(() => rmSync(mount, { recursive: true }))
  const put = (path: string, text: string) => writeFileSync(join(mount, path), text)
  mkdirSync(join(mount, 'host/m1/inner'), { recursive: true })
  put('cgroup.controllers', 'cpu memory pids\n')
  put('host/m1/cgroup.procs', '10\n0\n11\n')
  put('host/m1/inner/cgroup.procs', '12\n')
  put('host/m1/memory.events', 'low 0\noom 3\noom_kill 2\n')
  put('host/m1/cpu.stat', 'usage_usec 1234\nuser_usec 1000\n')
  put('host/m1/memory.current', '4096\n')
  put('host/m1/cgroup.freeze', '1\n')
  const tree = findCgroups(mount)
  assert.equal(tree.version, 2)
  assert.equal(countsSwap(tree), true)
  assert.deepEqual(processesOf(tree, '/host/m1'), [10, 11, 12])
  assert.deepEqual(processesOf(tree, '/host/none'), [])
  assert.equal(oomKills(tree, '/host/m1'), 2)
  assert.deepEqual(useOf(tree, '/host/m1'), { cpuUsec: 1234, memoryBytes: 4096 })
  assert.equal(useOf(tree, '/host/none'), undefined)
  assert.equal(isFrozen(tree, '/host/m1'), true)
  assert.equal(isFrozen(tree, '/host/none'), false)
})

test('version 1 is what is mounted: a folder left over by an unmount is not waited for', async (t) => {
  const mount = mkdtempSync(join(tmpdir(), 'hangar-cgroup-'))
  t.after(() => rmSync(mount, { recursive: true }))
  const mountInfo = [
    `25 20 0:22 / ${mount} ro,nosuid - tmpfs tmpfs ro,mode=755`,
    `26 25 0:23 / ${mount}/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct`,
    `27 25 0:24 / ${mount}/memory rw - cgroup cgroup rw,memory`,
    `28 25 0:25 / ${mount}/unified rw - cgroup2 cgroup2 rw`,
    '29 25 0:26 / /elsewhere/pids rw - cgroup cgroup rw,pids',
    '',
  ].join('\n')
  const tree = findCgroups(mount, mountInfo)
  assert.deepEqual(tree, { version: 1, mount, controllers: ['cpu,cpuacct', 'memory', 'unified'] })
  // A file in it keeps an ordinary folder from being removed as a group would be.
  mkdirSync(join(mount, 'left/host/m1'), { recursive: true })
  writeFileSync(join(mount, 'left/host/m1/tasks'), '')
  const begun = performance.now()
  assert.equal(await removeCgroup(tree, 'host/m1', 60_000), true)
  assert.ok(performance.now() - begun < 30_000)
})
