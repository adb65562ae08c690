import assert from 'node:assert/strict'
import { test } from 'node:test'
import { rootGbOf, rootPersistOf } from './rootfs.ts'

test('MCH-65: the newer name counts first, empty is nothing, and nothing is never', () => {
  const rows = [
    [undefined, undefined, 'never'],
    ['', null, 'never'],
    ['restart', undefined, 'restart'],
    ['restart', '', 'restart'],
    ['', 'always', 'always'],
    ['always', 'always', 'always'],
  ] as const
  for (const [persist_rootfs, persist, wanted] of rows) {
    assert.equal(rootPersistOf({ guest: { persist_rootfs }, rootfs: { persist } }), wanted)
  }
  assert.equal(rootPersistOf({}), 'never')
})

test('a root has 8 GB unless it is said otherwise; 0 says nothing', () => {
  const rows = [
    [{}, 8],
    [{ size_gb: 0, fs_size_gb: 0 }, 8],
    [{ size_gb: 2 }, 2],
    [{ size_gb: 20, fs_size_gb: 5 }, 5],
    [{ fs_size_gb: 5 }, 5],
    [{ fs_size_gb: 50 }, 50],
  ] as const
  for (const [rootfs, wanted] of rows) assert.equal(rootGbOf({ rootfs }), wanted)
})
