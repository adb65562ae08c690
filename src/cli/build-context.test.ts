import assert from 'node:assert/strict'
import {
  chmodSync,
  createWriteStream,
  mkdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { test, type TestContext } from 'node:test'
import { runOk } from '#sys/process.ts'
import { openBuildContext } from './build-context.ts'
import { temporaryFolder } from './test-support.ts'

function writeTree(folder: string, files: Record<string, string>): void {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(join(folder, path, '..'), { recursive: true })
    writeFileSync(join(folder, path), text)
  }
}

/** What GNU tar finds in the context, and the context itself. */
async function packed(
  t: TestContext,
  files: Record<string, string>,
  options: { dockerfile?: string; prepare?: (folder: string) => void } = {},
) {
  const root = temporaryFolder(t)
  const folder = join(root, 'app')
  mkdirSync(folder)
  writeTree(folder, files)
  options.prepare?.(folder)
  const context = await openBuildContext({
    folder,
    dockerfile: options.dockerfile ?? join(folder, 'Dockerfile'),
  })
  const tar = join(root, 'context.tar')
  await pipeline(context.pack(), createWriteStream(tar))
  const names = (await runOk('tar', ['tf', tar])).trim().split('\n')
  const details = await runOk('tar', ['tvf', tar, '--numeric-owner'])
  return { names, details, context, folder, tar, root }
}

test('everything is sent without an ignore file, folders first, the same each time', async (t) => {
  const files = { Dockerfile: 'FROM scratch', 'b/two': '2', 'b/c/three': '3', a: '1' }
  const { names, context } = await packed(t, files)
  assert.deepEqual(names, ['Dockerfile', 'a', 'b/', 'b/c/', 'b/two', 'b/c/three'])
  assert.equal(context.bytes, 'FROM scratch123'.length)
  assert.equal(context.files, 4)
  assert.equal(context.dockerfile, 'Dockerfile')
})

test('the ignore file is obeyed, and it and the Dockerfile are sent all the same', async (t) => {
  const { names } = await packed(t, {
    Dockerfile: 'FROM scratch',
    '.dockerignore': '*\n!src\n!deep/kept/file\nsrc/*.log',
    'src/main.js': 'x',
    'src/debug.log': 'x',
    'deep/kept/file': 'x',
    'deep/kept/other': 'x',
    'node_modules/a/b.js': 'x',
  })
  assert.deepEqual(names, [
    '.dockerignore',
    'Dockerfile',
    'src/',
    'deep/',
    'deep/kept/',
    'deep/kept/file',
    'src/main.js',
  ])
})

test('an ignore file of the Dockerfile itself wins over that of the folder', async (t) => {
  const { names, context, folder } = await packed(
    t,
    {
      'docker/web.Dockerfile': 'FROM scratch',
      'docker/web.Dockerfile.dockerignore': 'b',
      '.dockerignore': 'a',
      a: '1',
      b: '2',
    },
    { dockerfile: 'docker/web.Dockerfile' },
  )
  assert.equal(context.ignoreFile, join(folder, 'docker/web.Dockerfile.dockerignore'))
  assert.equal(context.dockerfile, 'docker/web.Dockerfile')
  assert.ok(names.includes('a') && !names.includes('b'), names.join(' '))
})

test('symlinks stay symlinks, modes stay, owners become root, long and foreign names survive', async (t) => {
  const long = `${'d'.repeat(120)}/${'f'.repeat(120)}.txt`
  const { details, tar, root } = await packed(
    t,
    { Dockerfile: 'FROM scratch', 'run.sh': '#!/bin/sh', [long]: 'long', 'tü r.txt': 'ü' },
    {
      prepare: (folder) => {
        chmodSync(join(folder, 'run.sh'), 0o755)
        symlinkSync('run.sh', join(folder, 'link'))
        symlinkSync('/nowhere', join(folder, 'dangling'))
      },
    },
  )
  assert.match(details, /-rwxr-xr-x 0\/0 .* run\.sh/)
  assert.match(details, /lrwxrwxrwx 0\/0 .* link -> run\.sh/)
  assert.match(details, /dangling -> \/nowhere/)
  const out = join(root, 'out')
  mkdirSync(out)
  await runOk('tar', ['xf', tar, '-C', out])
  assert.equal(readFileSync(join(out, long), 'utf8'), 'long')
  assert.equal(readFileSync(join(out, 'tü r.txt'), 'utf8'), 'ü')
})

test('a Dockerfile outside the folder is sent along', async (t) => {
  const outside = join(temporaryFolder(t), 'Other')
  writeFileSync(outside, 'FROM outside')
  const { names, context } = await packed(t, { a: '1' }, { dockerfile: outside })
  assert.deepEqual(names, ['a', '.hangar.Dockerfile'])
  assert.equal(context.dockerfile, '.hangar.Dockerfile')
})

test('an ignore file that does not exist is named', async (t) => {
  const folder = temporaryFolder(t)
  writeTree(folder, { Dockerfile: 'FROM scratch' })
  const ignorefile = join(folder, 'missing')
  await assert.rejects(
    openBuildContext({ folder, dockerfile: join(folder, 'Dockerfile'), ignorefile }),
    /missing does not exist/,
  )
})
