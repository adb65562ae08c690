import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { createLogger } from '#sys/log.ts'
import { createPusher, layer, type Pusher } from '../../../test/images/push.ts'
import { startImageRegistry, type ImageRegistry } from '../../../test/images/registry.ts'
import { openImageStore, type ImageStore } from './store.ts'

const home = mkdtempSync(join(tmpdir(), 'hangar-image-'))
const log = createLogger('image-test')
log.level = 'silent'
let registry: ImageRegistry
let pusher: Pusher

before(async () => {
  registry = await startImageRegistry({ dir: join(home, 'registry') })
  pusher = createPusher(registry.url)
})
after(async () => {
  await registry.close()
  rmSync(home, { recursive: true, force: true })
})

/** A tar of a folder that `make` fills, by the real tar. */
function tarOf(name: string, make: (folder: string) => void): Buffer {
  const folder = join(home, 'trees', name)
  mkdirSync(folder, { recursive: true })
  make(folder)
  return execFileSync(
    'tar',
    ['--format=pax', '--xattrs', '--numeric-owner', '--sort=name', '-C', folder, '-cf', '-', '.'],
    { maxBuffer: 1 << 28 },
  )
}

const openStore = (name: string, mirrors: Record<string, string[]> = {}): ImageStore =>
  openImageStore({ dir: join(home, name), mirrors, registries: [], log })

/** Unpacks a squashfs with the real tool; returns the folder. */
function unpack(squashfsPath: string, name: string): string {
  const folder = join(home, 'unpacked', name)
  mkdirSync(folder, { recursive: true })
  execFileSync('sh', [
    '-c',
    'sqfs2tar "$1" | tar -x --xattrs --xattrs-include="*" -C "$2"',
    'sh',
    squashfsPath,
    folder,
  ])
  return folder
}

test('an image becomes a squashfs with its configuration beside it', async () => {
  const tar = tarOf('plain', (folder) => {
    mkdirSync(join(folder, 'bin'))
    writeFileSync(join(folder, 'bin/busybox'), readFileSync('/bin/busybox'), { mode: 0o755 })
    writeFileSync(join(folder, 'hello'), 'hi')
  })
  await pusher.image('plain', 'v1', {
    layers: [layer(tar)],
    config: {
      Env: ['A=b'],
      Cmd: ['sh'],
      ExposedPorts: { '8080/tcp': {}, '53/udp': {} },
      User: 'nobody',
    },
  })
  const store = openStore('plain')
  const resolved = await store.resolve(`${registry.host}/plain:v1`)
  assert.equal(resolved.repository, 'plain')
  assert.deepEqual(resolved.exposed_ports, [8080])
  const local = await store.ensure(resolved)
  assert.equal(local.digest, resolved.digest)
  assert.deepEqual(local.config.cmd, ['sh'])
  const folder = unpack(local.squashfsPath, 'plain')
  assert.equal(readFileSync(join(folder, 'hello'), 'utf8'), 'hi')
  assert.deepEqual(readFileSync(join(folder, 'bin/busybox')), readFileSync('/bin/busybox'))
})
