import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { isFault } from '#core/fault.ts'
import { flatten } from './flatten.ts'
import {
  tarOfEntries,
  tarOfFolder,
  temporaryFolder,
  withMounted,
  type EntryInput,
} from './fixtures.ts'

const home = temporaryFolder()
after(() => home.remove())
let count = 0

/** Flattens layers (the lowest first) and looks at the result as the kernel sees it. */
async function flattened<T>(
  layers: readonly (Buffer | readonly EntryInput[])[],
  look: (root: string) => T,
): Promise<T> {
  const paths = layers.map((layer) => {
    const path = join(home.path, `layer-${count++}`)
    writeFileSync(path, Buffer.isBuffer(layer) ? layer : tarOfEntries(layer))
    return path
  })
  const squashfsPath = join(home.path, `root-${count++}.squashfs`)
  await flatten({ layers: paths, squashfsPath })
  return withMounted(home.path, squashfsPath, look)
}

const text = (root: string, path: string): string => readFileSync(join(root, path), 'utf8')
const folder = (path: string, more: Partial<EntryInput> = {}): EntryInput => ({
  path,
  type: 'directory',
  mode: 0o755,
  ...more,
})
const link = (path: string, target: string): EntryInput => ({ path, type: 'symlink', link: target })
const hard = (path: string, target: string): EntryInput => ({
  path,
  type: 'hardlink',
  link: target,
})

test('a tree of a real tar comes out as it went in', async () => {
  const long = 'd'.repeat(120)
  const tar = tarOfFolder(home.path, (tree) => {
    mkdirSync(join(tree, long, 'é'.repeat(70)), { recursive: true })
    writeFileSync(join(tree, long, 'é'.repeat(70), 'file'), 'deep')
    execFileSync('ln', ['-s', `/${long}/${'é'.repeat(70)}`, join(tree, 'far')])
    execFileSync('mknod', [join(tree, 'null'), 'c', '1', '3'])
    execFileSync('mkfifo', [join(tree, 'pipe')])
    execFileSync('install', ['-m', '4755', '-o', '7', '-g', '9', '/bin/true', join(tree, 'suid')])
    writeFileSync(Buffer.concat([Buffer.from(`${tree}/latin-`), Buffer.from([0xe9])]), 'odd name')
    writeFileSync(join(tree, 'empty'), '')
  })
  await flattened([gzipSync(tar)], (root) => {
    assert.equal(text(root, `${long}/${'é'.repeat(70)}/file`), 'deep')
    assert.equal(readlinkSync(join(root, 'far')), `/${long}/${'é'.repeat(70)}`)
    const device = lstatSync(join(root, 'null'))
    assert.ok(device.isCharacterDevice())
    assert.equal(device.rdev, (1 << 8) | 3)
    assert.ok(lstatSync(join(root, 'pipe')).isFIFO())
    const suid = lstatSync(join(root, 'suid'))
    assert.deepEqual([suid.mode & 0o7777, suid.uid, suid.gid], [0o4755, 7, 9])
    assert.equal(lstatSync(join(root, 'empty')).size, 0)
    const names = readdirSync(root, { encoding: 'buffer' })
    assert.ok(names.some((name) => name.equals(Buffer.from([...Buffer.from('latin-'), 0xe9]))))
  })
})

test('layers with nothing in them change nothing, wherever they are', async () => {
  const layer = tarOfEntries([folder('etc/'), { path: 'etc/name', content: 'kept' }])
  const end = Buffer.alloc(1024)
  // Docker's own has only the mark of its end; tools that cut that off exist.
  const empty = [end, gzipSync(end), zstdCompressSync(end), Buffer.alloc(0), gzipSync('')]
  await flattened([...empty, layer, ...empty], (root) => {
    assert.deepEqual(readdirSync(root), ['etc'])
    assert.equal(text(root, 'etc/name'), 'kept')
  })
  await flattened([end], (root) => assert.deepEqual(readdirSync(root), []))
})

test('file capabilities survive, orders to an overlay do not', async () => {
  // cap_setuid and cap_setfcap have bytes over 127, which break when they are read as text.
  const capability = '\x01\0\0\x02\x80\0\0\x80'.padEnd(20, '\0')
  const xattrs = new Map([
    ['security.capability', capability],
    ['user.note', 'kept'],
    ['trusted.overlay.opaque', 'y'],
    ['user.overlay.opaque', 'y'],
  ])
  /** What the real tar reads from the mounted image. */
  const tarOf = (root: string) =>
    execFileSync('tar', [
      '--format=pax',
      '--xattrs',
      '--xattrs-include=*',
      '-C',
      root,
      '-cf',
      '-',
      'ping',
    ])
  const check = (root: string): Buffer => {
    const tar = tarOf(root)
    const words = tar.toString('latin1')
    assert.ok(words.includes(` SCHILY.xattr.security.capability=${capability}\n`))
    assert.ok(words.includes(' SCHILY.xattr.user.note=kept\n'))
    assert.ok(!words.includes('overlay'))
    return tar
  }
  const again = await flattened([[{ path: 'ping', content: 'x', mode: 0o755, xattrs }]], check)
  await flattened([again], check)
})

test('the last layer that names a path has the last word', async () => {
  const lower: EntryInput[] = [
    folder('./', { mode: 0o700 }),
    folder('a/', { mode: 0o700, mtime: 5 }),
    { path: 'a/one', content: 'lower' },
    { path: 'a/two', content: 'stays' },
    { path: 'file-to-folder', content: 'f' },
    folder('folder-to-file/'),
    { path: 'folder-to-file/gone', content: 'g' },
    { path: 'twice', content: 'first' },
    { path: 'twice', content: 'second' },
  ]
  const upper: EntryInput[] = [
    { path: '/a/one', content: 'upper' },
    folder('a', { mode: 0o711, mtime: 6 }),
    folder('file-to-folder/'),
    { path: 'file-to-folder/in', content: 'in' },
    { path: 'folder-to-file', content: 'now a file' },
    { path: 'made/by/its/contents', content: '!' },
  ]
  await flattened(
    [gzipSync(tarOfEntries(lower)), zstdCompressSync(tarOfEntries(upper))],
    (root) => {
      assert.equal(text(root, 'a/one'), 'upper')
      assert.equal(text(root, 'a/two'), 'stays')
      assert.equal(lstatSync(join(root, 'a')).mode & 0o777, 0o711)
      assert.equal(lstatSync(root).mode & 0o777, 0o700)
      assert.equal(text(root, 'file-to-folder/in'), 'in')
      assert.equal(text(root, 'folder-to-file'), 'now a file')
      assert.equal(text(root, 'twice'), 'second')
      assert.equal(text(root, 'made/by/its/contents'), '!')
    },
  )
})

test('whiteouts hide what lower layers brought and nothing else', async () => {
  const lower: EntryInput[] = [
    { path: 'file', content: '1' },
    { path: 'keep', content: '1' },
    { path: 'tree/deep/file', content: '1' },
    folder('opaque', { mode: 0o700 }),
    { path: 'opaque/old', content: '1' },
    { path: 'opaque/sub/old', content: '1' },
    { path: 'again', content: 'old' },
  ]
  const upper: EntryInput[] = [
    { path: '.wh.file' },
    { path: '.wh.tree' },
    { path: '.wh.never-was' },
    { path: '.wh..wh.plnk' },
    // The new files stand before the whiteout that hides the old ones: the order in a layer must not matter.
    { path: 'opaque/new', content: '2' },
    { path: 'opaque/sub/new', content: '2' },
    { path: 'opaque/.wh..wh..opq' },
    { path: 'again', content: 'new' },
    { path: '.wh.again' },
  ]
  const top: EntryInput[] = [{ path: 'tree/back', content: '3' }]
  await flattened([lower, upper, top], (root) => {
    assert.deepEqual(readdirSync(root).sort(), ['again', 'keep', 'opaque', 'tree'])
    assert.deepEqual(readdirSync(join(root, 'opaque')).sort(), ['new', 'sub'])
    assert.deepEqual(readdirSync(join(root, 'opaque/sub')), ['new'])
    assert.equal(text(root, 'again'), 'new')
    assert.deepEqual(readdirSync(join(root, 'tree')), ['back'])
  })
})

test('hard links share one file, across layers too, and keep it when its first name changes', async () => {
  const real = tarOfFolder(home.path, (tree) => {
    writeFileSync(join(tree, 'a'), 'linked')
    linkSync(join(tree, 'a'), join(tree, 'b'))
  })
  const upper: EntryInput[] = [
    hard('c', 'a'),
    hard('./d', '/a'),
    { path: 'a', content: 'replaced' },
    link('s', 'c'),
    hard('s2', 's'),
  ]
  await flattened([real, upper, [{ path: '.wh.b' }]], (root) => {
    assert.equal(text(root, 'a'), 'replaced')
    assert.equal(text(root, 'c'), 'linked')
    assert.equal(text(root, 'd'), 'linked')
    assert.equal(lstatSync(join(root, 'c')).ino, lstatSync(join(root, 'd')).ino)
    assert.equal(lstatSync(join(root, 'c')).nlink, 2)
    assert.equal(existsSync(join(root, 'b')), false)
    assert.equal(readlinkSync(join(root, 's2')), 'c')
  })
})

test('a path through a symbolic link lands inside the image, wherever the link points', async () => {
  const lower: EntryInput[] = [
    folder('usr/lib/'),
    link('lib', 'usr/lib'),
    link('out', '../../../../tmp'),
    link('abs', '/etc'),
    link('dangling', 'not/there'),
    link('replaced', '/etc'),
  ]
  const upper: EntryInput[] = [
    { path: 'lib/so', content: 'in usr/lib' },
    { path: 'out/trick', content: 'inside' },
    { path: 'abs/passwd', content: 'root' },
    { path: 'dangling/x', content: 'x' },
    folder('replaced/'),
    { path: 'replaced/own', content: 'own' },
    { path: 'lib/.wh.gone' },
  ]
  await flattened([lower, upper], (root) => {
    assert.equal(readlinkSync(join(root, 'lib')), 'usr/lib')
    assert.equal(text(root, 'usr/lib/so'), 'in usr/lib')
    assert.equal(text(root, 'tmp/trick'), 'inside')
    assert.equal(text(root, 'etc/passwd'), 'root')
    assert.equal(text(root, 'not/there/x'), 'x')
    assert.ok(lstatSync(join(root, 'replaced')).isDirectory())
  })
  assert.equal(existsSync('/tmp/trick'), false)
})

const refused: [string, (Buffer | EntryInput[])[], RegExp][] = [
  ['a name that climbs out', [[{ path: '../../etc/passwd', content: 'x' }]], /climbs out/],
  ['a hard link that climbs out', [[hard('x', '../../etc/passwd')]], /climbs out/],
  ['a hard link to nothing', [[hard('x', 'missing')]], /no file of the image/],
  ['a hard link to a folder', [[folder('d'), hard('x', 'd')]], /no file of the image/],
  [
    'links that lead to each other',
    [[link('a', 'b'), link('b', 'a'), { path: 'a/x' }]],
    /too many symbolic/,
  ],
  ['a file as a folder', [[{ path: 'f' }, { path: 'f/x' }]], /no folder/],
  ['a whiteout of the folder itself', [[{ path: 'a/.wh..' }]], /hides nothing/],
  [
    'a cut archive',
    [tarOfEntries([{ path: 'f', content: 'x'.repeat(600) }]).subarray(0, 700)],
    /middle of/,
  ],
  [
    'cut gzip',
    [gzipSync(tarOfEntries([{ path: 'f', content: 'abc' }])).subarray(0, 40)],
    /cannot be unpacked/,
  ],
  ['no archive', [Buffer.alloc(1024, 'garbage ')], /not a usable tar/],
]
for (const [name, layers, message] of refused) {
  test(`${name} is refused with a reason`, async () => {
    await assert.rejects(
      flattened(layers, () => {}),
      (error) => isFault(error, 'image_unavailable') && message.test(error.message),
    )
  })
}

test('an image over the limit is refused while it is read, and no process is left', async () => {
  const path = join(home.path, 'large')
  writeFileSync(path, gzipSync(tarOfEntries([{ path: 'zeros', content: '0'.repeat(5_000_000) }])))
  await assert.rejects(
    flatten({ layers: [path], squashfsPath: join(home.path, 'never'), bytesMax: 1_000_000 }),
    (error) => isFault(error, 'too_large') && /limit of 1000000/.test(error.message),
  )
  assert.equal(existsSync(join(home.path, 'never')), false)
})

test('a tar2sqfs that fails gives its own words', async () => {
  const path = join(home.path, 'one')
  writeFileSync(path, tarOfEntries([{ path: 'f', content: 'x' }]))
  await assert.rejects(
    flatten({ layers: [path], squashfsPath: join(home.path, 'no-folder/root.squashfs') }),
    (error) => isFault(error, 'native_failed') && /No such file/.test(error.message),
  )
})
