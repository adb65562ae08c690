import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { openImageStore } from '#host/image/index.ts'
import { createLogger } from '#sys/log.ts'
import { buildImages, startTestImages } from './build.ts'

const home = mkdtempSync(join(tmpdir(), 'hangar-test-images-'))
after(() => rmSync(home, { recursive: true, force: true }))

test('the busybox stand-in is built once, served as the public registry, and runs', async () => {
  const cache = join(home, 'cache')
  const lines: string[] = []
  const options = { names: ['busybox'], cache, say: (line: string) => lines.push(line) }
  await Promise.all([buildImages(options), buildImages(options)])
  await buildImages(options)
  assert.equal(lines.length, 1)
  const log = createLogger('test-images')
  log.level = 'silent'
  const registry = await startTestImages(options)
  const store = openImageStore({
    dir: join(home, 'store'),
    mirrors: { 'docker.io': [registry.url] },
    registries: [],
    log,
  })
  const local = await store.ensure(await store.resolve('busybox'))
  await registry.close()
  assert.deepEqual(local.config.cmd, ['sh'])
  const root = join(home, 'root')
  mkdirSync(root)
  execFileSync('mount', ['-t', 'squashfs', '-o', 'loop,ro', local.squashfsPath, root])
  try {
    const said = execFileSync('chroot', [
      root,
      'sh',
      '-c',
      'echo "$(id -un) $(basename /bin/httpd)"',
    ])
    assert.equal(said.toString(), 'root httpd\n')
  } finally {
    execFileSync('umount', [root])
  }
})

test('a name that no recipe has is refused with the names there are', async () => {
  await assert.rejects(
    buildImages({ names: ['windows'], cache: home }),
    /there are: busybox, alpine/,
  )
})
