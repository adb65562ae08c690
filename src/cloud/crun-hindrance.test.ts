import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { onlyHugetlbHinders } from './crun-hindrance.ts'

test('crun is freed only where huge pages are all that is version 2', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'hangar-cgroups-'))
  t.after(() => rmSync(dir, { recursive: true }))
  const put = (name: string, text: string) => {
    mkdirSync(join(dir, name, '..'), { recursive: true })
    writeFileSync(join(dir, name), text)
  }
  assert.equal(onlyHugetlbHinders(dir), false)
  put('unified/cgroup.controllers', 'hugetlb\n')
  assert.equal(onlyHugetlbHinders(dir), false, 'nothing of version 1 is there')
  put('memory/cgroup.procs', '')
  assert.equal(onlyHugetlbHinders(dir), true)
  put('unified/cgroup.controllers', 'cpuset hugetlb\n')
  assert.equal(onlyHugetlbHinders(dir), false)
  put('unified/cgroup.controllers', '\n')
  assert.equal(onlyHugetlbHinders(dir), false)
})
