import assert from 'node:assert/strict'
import { test } from 'node:test'
import { seccompProfile } from './seccomp.ts'

interface Rule {
  names: string[]
  action: string
  args?: { index: number; value: number; op: string }[]
}

test('sockets to the hypervisor, which no network namespace confines, are refused', () => {
  const { syscalls } = seccompProfile('x64') as { syscalls: Rule[] }
  const rules = syscalls.filter(({ names }) => names.includes('socket'))
  assert.deepEqual(
    rules.map(({ action, args }) => [action, args?.[0]?.value, args?.[0]?.op]),
    [['SCMP_ACT_ERRNO', 40, 'SCMP_CMP_EQ']],
  )
})
