import assert from 'node:assert/strict'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import fc from 'fast-check'
import { makeFolderInTree, resolveInTree } from './tree.ts'
import { hasProgram, readInTree, writeInTree } from './tree-files.ts'

function makeTree(t: TestContext) {
  const base = mkdtempSync(join(tmpdir(), 'hangar-tree-'))
  t.after(() => rmSync(base, { recursive: true }))
  const root = join(base, 'root')
  const volume = join(base, 'volume')
  mkdirSync(join(root, 'etc'), { recursive: true })
  mkdirSync(volume)
  writeFileSync(join(base, 'secret'), 'of the host')
  return { base, root, volume, tree: { root, mounts: [{ source: volume, path: '/data' }] } }
}

test('links of the image never lead out of it', (t) => {
  const { base, root, tree } = makeTree(t)
  symlinkSync(base, join(root, 'away'))
  symlinkSync('../../../../../..' + base, join(root, 'etc', 'up'))
  writeInTree(tree, { path: '/away/secret', content: 'mine', mode: 0o600 })
  writeInTree(tree, { path: '/etc/up/secret', content: 'mine too', mode: 0o600 })
  assert.equal(readFileSync(join(base, 'secret'), 'utf8'), 'of the host')
  assert.equal(readFileSync(join(root, base, 'secret'), 'utf8'), 'mine too')
})

test('a last part that is a link is followed inside', (t) => {
  const { root, tree } = makeTree(t)
  symlinkSync('/run/resolv.conf', join(root, 'etc', 'resolv.conf'))
  writeInTree(tree, { path: '/etc/resolv.conf', content: 'nameserver 1', mode: 0o644 })
  assert.equal(readFileSync(join(root, 'run', 'resolv.conf'), 'utf8'), 'nameserver 1')
  assert.equal(readInTree(tree, '/etc/resolv.conf'), 'nameserver 1')
})

test('a mounted folder takes what is written under it', (t) => {
  const { root, volume, tree } = makeTree(t)
  symlinkSync('/etc/passwd', join(volume, 'trap'))
  writeInTree(tree, { path: '/data/deep/file', content: 'x', mode: 0o644 })
  writeInTree(tree, { path: '/data/trap', content: 'y', mode: 0o644 })
  assert.equal(readFileSync(join(volume, 'deep', 'file'), 'utf8'), 'x')
  assert.equal(readFileSync(join(root, 'etc', 'passwd'), 'utf8'), 'y')
})

test('circles and files in the way are refused', (t) => {
  const { root, tree } = makeTree(t)
  symlinkSync('/b', join(root, 'a'))
  symlinkSync('/a', join(root, 'b'))
  writeFileSync(join(root, 'file'), '')
  assert.throws(() => resolveInTree(tree, '/a/x'), /too many links/)
  assert.equal(resolveInTree(tree, '/file/x'), undefined)
  assert.throws(() => makeFolderInTree(tree, '/file'), /must be a folder/)
  assert.throws(() => writeInTree(tree, { path: '/etc', content: '', mode: 0o644 }), /is a folder/)
})

test('programs are found as the machine would find them', (t) => {
  const { root, tree } = makeTree(t)
  mkdirSync(join(root, 'usr/bin'), { recursive: true })
  symlinkSync('usr/bin', join(root, 'bin'))
  writeFileSync(join(root, 'usr/bin/app'), '', { mode: 0o755 })
  writeFileSync(join(root, 'usr/bin/plain'), '', { mode: 0o644 })
  const where = { path: '/sbin:/bin', workdir: '/usr' }
  assert.ok(hasProgram(tree, 'app', where))
  assert.ok(hasProgram(tree, '/bin/app', where))
  assert.ok(hasProgram(tree, 'bin/app', where))
  assert.ok(!hasProgram(tree, 'plain', where))
  assert.ok(!hasProgram(tree, 'missing', where))
  assert.ok(!hasProgram(tree, '/bin', where))
})

test('whatever the links and the path, the place is inside', (t) => {
  const { root, tree } = makeTree(t)
  const part = fc.constantFrom('..', '.', 'a', 'b', 'etc', '', 'data')
  const path = fc.array(part, { maxLength: 6 }).map((parts) => parts.join('/'))
  fc.assert(
    fc.property(path, path, path, fc.boolean(), (first, second, asked, absolute) => {
      for (const name of ['a', 'b']) rmSync(join(root, name), { recursive: true, force: true })
      symlinkSync((absolute ? '/' : '') + (first || '.'), join(root, 'a'))
      symlinkSync(second || '..', join(root, 'b'))
      try {
        const outside = resolveInTree(tree, asked)?.outside
        const volume = tree.mounts[0]?.source ?? ''
        assert.ok(outside === undefined || outside.startsWith(root) || outside.startsWith(volume))
        assert.ok(outside === undefined || !outside.includes('/../'))
      } catch (error) {
        assert.match(String(error), /too many links/)
      }
    }),
    { numRuns: 300 },
  )
  assert.ok(existsSync(root))
})
