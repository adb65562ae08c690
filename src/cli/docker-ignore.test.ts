import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseIgnoreFile, type Decision } from './docker-ignore.ts'

/** Decides a path the way a walk does: folder by folder. */
function ignored(file: string, path: string): boolean {
  const rules = parseIgnoreFile(file)
  let decision: Decision | undefined
  const parts = path.split('/')
  parts.forEach((_, i) => (decision = rules.decide(parts.slice(0, i + 1).join('/'), decision)))
  return decision?.ignored ?? false
}

// The table of Docker's own documentation and of the cases that its matcher is known by.
const cases: [file: string, path: string, expected: boolean][] = [
  ['# a comment', '# a comment', false],
  ['*/temp*', 'somedir/temporary.txt', true],
  ['*/temp*', 'temporary.txt', false],
  ['*/*/temp*', 'somedir/subdir/temporary.txt', true],
  ['temp?', 'tempa', true],
  ['temp?', 'temp', false],
  ['temp?', 'temp/', false],
  ['**/*.go', 'main.go', true],
  ['**/*.go', 'a/b/main.go', true],
  ['**/*.go', 'main.go.txt', false],
  ['node_modules', 'node_modules/a/b.js', true],
  ['node_modules', 'sub/node_modules', false],
  ['**/node_modules', 'sub/node_modules/x', true],
  ['**/node_modules', 'node_modules', true],
  ['node_modules/', 'node_modules/a', true],
  ['/build', 'build', true],
  ['./build', 'build', true],
  ['build/../dist', 'dist', true],
  ['  build  ', 'build', true],
  ['dir/**', 'dir/a/b', true],
  ['dir/**', 'dir', false],
  ['**', 'anything/at/all', true],
  ['a/**/b', 'a/b', true],
  ['a/**/b', 'a/x/y/b', true],
  ['a/**/b', 'a/x/y/c', false],
  ['*.md\n!README.md', 'README.md', false],
  ['*.md\n!README*.md\nREADME-secret.md', 'README-secret.md', true],
  ['*.md\nREADME-secret.md\n!README*.md', 'README-secret.md', false],
  ['docs\n!docs/README.md', 'docs/README.md', false],
  ['docs\n!docs/README.md', 'docs/other.md', true],
  ['*\n!src', 'src/a/b.ts', false],
  ['*\n!src', 'other', true],
  ['*\n!src/**', 'src/a.ts', false],
  ['! docs\n', 'docs', false],
  ['a.b', 'axb', false],
  ['a+b(c)', 'a+b(c)', true],
  ['[a-c].txt', 'b.txt', true],
  ['[^a-c].txt', 'b.txt', false],
  ['[^a-c].txt', 'd.txt', true],
  ['a\\*b', 'a*b', true],
  ['a\\*b', 'axb', false],
  ['\uFEFFbuild', 'build', true],
  ['build\r\ndist\r\n', 'build', true],
  ['*.ü', 'x.ü', true],
  ['?.txt', '🙂.txt', true],
]

for (const [file, path, expected] of cases) {
  test(`${JSON.stringify(file)} ${expected ? 'ignores' : 'keeps'} ${path}`, () => {
    assert.equal(ignored(file, path), expected)
  })
}

test('a pattern that could not matter for the folder does not count for what is in it, as in Docker', () => {
  // The second `a` is not tried for the folder, which is ignored already; the `!` then holds for a/b.
  assert.equal(ignored('a\n!a/b\na', 'a/b'), false)
  assert.equal(ignored('a\n!a/b\na/*', 'a/b'), true)
})

test('a folder under which nothing comes back need not be read', () => {
  assert.equal(parseIgnoreFile('big').mayIncludeBelow('big'), false)
  assert.equal(parseIgnoreFile('big\n!src/keep').mayIncludeBelow('big'), false)
  assert.equal(parseIgnoreFile('big\n!big/a/keep').mayIncludeBelow('big/a'), true)
  assert.equal(parseIgnoreFile('big\n!**/keep').mayIncludeBelow('big'), true)
})

test('a pattern that cannot be understood is named', () => {
  assert.throws(() => parseIgnoreFile('ok\n[a-'), /"\[a-"/)
  assert.throws(() => parseIgnoreFile('!'), /"!" alone/)
})

const name = fc.stringMatching(/^[a-z][a-z0-9.+()$-]{0,6}$/)
const path = fc.array(name, { minLength: 1, maxLength: 4 }).map((parts) => parts.join('/'))

test('a plain pattern ignores its own path and everything below, and nothing else', () => {
  fc.assert(
    fc.property(path, path, (pattern, other) => {
      const below = other === pattern || other.startsWith(`${pattern}/`)
      return ignored(pattern, other) === below
    }),
  )
})

test('what is excluded and then included again as a whole is kept', () => {
  fc.assert(fc.property(path, (one) => !ignored(`${one}\n!${one}`, one)))
})

test('skipping a folder never loses a file that the rules keep', () => {
  const line = fc
    .tuple(fc.boolean(), path, fc.constantFrom('', '/*', '/**'))
    .map(([include, pattern, end]) => `${include ? '!' : ''}${pattern}${end}`)
  fc.assert(
    fc.property(fc.array(line, { maxLength: 5 }), path, (lines, wanted) => {
      const file = ['*', ...lines].join('\n')
      if (ignored(file, wanted)) return true
      const rules = parseIgnoreFile(file)
      const parts = wanted.split('/')
      return parts.slice(0, -1).every((_, i) => {
        const folder = parts.slice(0, i + 1).join('/')
        return !ignored(file, folder) || rules.mayIncludeBelow(folder)
      })
    }),
  )
})
