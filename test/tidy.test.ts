import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync, statSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { test } from 'node:test'

/** The rules of the house that no linter knows. */

const root = resolve(import.meta.dirname, '..')
const tracked = execFileSync('git', ['ls-files', '-co', '--exclude-standard'], {
  cwd: root,
  encoding: 'utf8',
})
  .split('\n')
  .filter(Boolean)
const sources = tracked.filter((f) => /^(bin|src|test|bench)\/.*\.ts$/.test(f))
const text = new Map(sources.map((f) => [f, readFileSync(join(root, f), 'utf8')]))

/** Which rooms a room may import. The three owners never import each other. */
const arrows: Record<string, readonly string[]> = {
  core: [],
  spec: ['core'],
  sys: ['core', 'spec'],
  roster: ['core', 'spec', 'sys'],
  host: ['core', 'spec', 'sys', 'roster'],
  edge: ['core', 'spec', 'sys', 'roster'],
  control: ['core', 'spec', 'sys', 'roster'],
  api: ['core', 'spec', 'sys', 'control'],
  cli: ['core', 'spec', 'sys'],
  cloud: ['core', 'spec', 'sys'],
}

const roomOf = (file: string) => /^src\/([a-z]+)\//.exec(file)?.[1]
const importsOf = (source: string) =>
  [
    ...source.matchAll(
      /(?:^|\n)(?:import|export)\b[^'"]*?from\s+'([^']+)'|\bimport\(\s*'([^']+)'|(?:^|\n)import\s+'([^']+)'/g,
    ),
  ].map((m) => (m[1] ?? m[2] ?? m[3]) as string)

/** The file that an import names, relative to the root, or undefined for a package. */
function targetOf(file: string, specifier: string): string | undefined {
  if (specifier.startsWith('#')) return `src/${specifier.slice(1)}`
  if (specifier.startsWith('.')) return relative(root, resolve(root, dirname(file), specifier))
  return undefined
}

const isTest = (file: string) => file.endsWith('.test.ts') || /test-support|driver-suite/.test(file)

test('imports follow the arrows, and a room is entered through its door', () => {
  const wrong: string[] = []
  for (const [file, source] of text) {
    const from = roomOf(file)
    if (!from) continue
    for (const specifier of importsOf(source)) {
      const target = targetOf(file, specifier)
      const to = target && roomOf(target)
      if (!to || to === from) continue
      if (!arrows[from]?.includes(to)) wrong.push(`${file} imports ${specifier}`)
      else if (
        ['roster', 'control'].includes(to) &&
        !target.endsWith('index.ts') &&
        !isTest(file)
      ) {
        wrong.push(`${file} enters ${to} beside its door: ${specifier}`)
      }
    }
  }
  assert.deepEqual(wrong, [])
})

test('one room speaks to each outside thing', () => {
  const only: [RegExp, RegExp][] = [
    [/from '@nats-io\//, /^src\/roster\//],
    [/from '(pg|kysely)'/, /^src\/control\//],
    [/from 'node:sqlite'/, /^src\/host\//],
    [/from 'node:child_process'/, /^src\/(sys|host|edge|cloud|control)\//],
  ]
  const wrong = sources
    .filter((f) => f.startsWith('src/') && !isTest(f))
    .flatMap((f) =>
      only
        .filter(([what, where]) => what.test(text.get(f) as string) && !where.test(f))
        .map(([what]) => `${f}: ${what}`),
    )
  assert.deepEqual(wrong, [])
})

test('pure rooms touch no clock, chance, disk, network or child process', () => {
  const banned =
    /\bDate\.now\(|\bMath\.random\(|\bsetTimeout\(|\bfetch\(|from 'node:(fs|net|http|child_process|sqlite)'/
  const allowed = new Set(['src/core/clock.ts', 'src/core/ids.ts'])
  const wrong = sources.filter(
    (f) =>
      /^src\/(core|spec|control\/schedule)\//.test(f) &&
      !isTest(f) &&
      !allowed.has(f) &&
      banned.test(text.get(f) as string),
  )
  assert.deepEqual(wrong, [])
})

test('every file is imported by somebody', () => {
  const reached = new Set<string>()
  for (const [file, source] of text) {
    for (const specifier of importsOf(source)) {
      const target = targetOf(file, specifier)
      if (target) reached.add(target)
    }
  }
  const roots = /^(bin|bench)\/|\.test\.ts$|^test\/(images\/build|support\/whole-report)\.ts$/
  assert.deepEqual(
    sources.filter((f) => !roots.test(f) && !reached.has(f)),
    [],
  )
})

test('no unfinished work, no large blobs, no overlong files', () => {
  const wrong: string[] = []
  for (const file of tracked) {
    const bytes = statSync(join(root, file)).size
    if (bytes > 100_000 && file !== 'package-lock.json') wrong.push(`${file} is ${bytes} bytes`)
  }
  for (const [file, source] of text) {
    if (file === 'test/tidy.test.ts') continue
    const lines = source.split('\n')
    if (lines.length > 600) wrong.push(`${file} has ${lines.length} lines`)
    if (/\b(TODO|FIXME|XXX)\b|@ts-ignore|@ts-expect-error|\.only\(/.test(source))
      wrong.push(`${file} is unfinished`)
    if (/: any\b|as any\b|<any>/.test(source)) wrong.push(`${file} uses any`)
  }
  assert.deepEqual(wrong, [])
})

test('every room has a README of at most 40 lines', () => {
  const rooms = new Set(sources.map(roomOf).filter((r) => r !== undefined))
  const wrong = [...rooms].filter((room) => {
    const readme = `src/${room}/README.md`
    return (
      !tracked.includes(readme) || readFileSync(join(root, readme), 'utf8').split('\n').length > 41
    )
  })
  assert.deepEqual(wrong, [])
})

test('every promised number names a file that guards it, or says that nothing does', () => {
  const rows = readFileSync(join(root, 'docs/numbers.md'), 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('| ') && !/^\| (what|---)/.test(line))
  assert.ok(rows.length > 5)
  const wrong = rows.filter((row) => {
    const guard = row.split('|').at(-2)?.trim() ?? ''
    if (guard === 'no test yet') return false
    const files = [...guard.matchAll(/`([^`]+)`/g)].map((m) => m[1] as string)
    return files.length === 0 || files.some((f) => !tracked.includes(f))
  })
  assert.deepEqual(wrong, [])
})

test('prints the largest files', (t) => {
  const largest = [...text]
    .map(([file, source]) => [source.split('\n').length, file] as const)
    .toSorted((a, b) => b[0] - a[0])
    .slice(0, 8)
  for (const [lines, file] of largest) t.diagnostic(`${lines} ${file}`)
})
