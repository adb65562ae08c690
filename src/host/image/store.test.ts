import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { isFault } from '#core/fault.ts'
import { eventually } from '#sys/test-support.ts'
import {
  createPusher,
  digestOf,
  layer,
  thisPlatform,
  type Pusher,
} from '../../../test/images/push.ts'
import { startImageRegistry, type ImageRegistry } from '../../../test/images/registry.ts'
import { quietLog, tarOfEntries, tarOfFolder, temporaryFolder, withMounted } from './fixtures.ts'
import { startNetwork, type Network } from './registry-fixtures.ts'
import { openImageStore, type ImageStore, type ImageStoreOptions } from './store.ts'

const home = temporaryFolder()
let registry: ImageRegistry
let network: Network
let pusher: Pusher

before(async () => {
  registry = await startImageRegistry({ dir: join(home.path, 'registry') })
  network = await startNetwork(registry.url)
  pusher = createPusher(registry.url)
})
after(async () => {
  await network.close()
  await registry.close()
  home.remove()
})

const openStore = (name: string, options: Partial<ImageStoreOptions> = {}): ImageStore =>
  openImageStore({
    dir: join(home.path, name),
    mirrors: {},
    registries: [],
    log: quietLog(),
    ...options,
  })

const textLayer = (path: string, content: string) => layer(tarOfEntries([{ path, content }]))
const readIn = (squashfsPath: string, path: string): string =>
  withMounted(home.path, squashfsPath, (root) => readFileSync(join(root, path), 'utf8'))

test('an image becomes a squashfs with its configuration beside it', async () => {
  const tar = tarOfFolder(home.path, (folder) => {
    mkdirSync(join(folder, 'bin'))
    writeFileSync(join(folder, 'bin/busybox'), readFileSync('/bin/busybox'), { mode: 0o755 })
    writeFileSync(join(folder, 'hello'), 'hi')
  })
  await pusher.image('plain', 'v1', {
    layers: [layer(tar)],
    config: {
      Env: ['A=b'],
      Cmd: ['sh'],
      Entrypoint: null,
      ExposedPorts: { '8080/tcp': {}, '53/udp': {}, '80': {} },
      User: 'nobody',
      StopSignal: 'SIGQUIT',
      Labels: { maker: 'me' },
    },
  })
  const store = openStore('plain')
  const resolved = await store.resolve(`${registry.host}/plain:v1`)
  const local = await store.ensure(resolved)
  assert.deepEqual(resolved, {
    registry: registry.host,
    repository: 'plain',
    tag: 'v1',
    digest: local.digest,
    labels: { maker: 'me' },
    ref: `${registry.host}/plain:v1@${local.digest}`,
    size: resolved.size,
    exposed_ports: [80, 8080],
  })
  assert.ok(resolved.size > 100_000)
  assert.deepEqual(local.config, {
    env: ['A=b'],
    entrypoint: [],
    cmd: ['sh'],
    user: 'nobody',
    workdir: '',
    exposedPorts: [80, 8080],
    stopSignal: 'SIGQUIT',
    labels: { maker: 'me' },
  })
  withMounted(home.path, local.squashfsPath, (root) => {
    assert.equal(readFileSync(join(root, 'hello'), 'utf8'), 'hi')
    assert.deepEqual(readFileSync(join(root, 'bin/busybox')), readFileSync('/bin/busybox'))
  })
})

test('an index leads to the manifest of this platform, by tag and by digest', async () => {
  const child = await pusher.image('multi', '', { layers: [textLayer('who', 'ours')] })
  const other = await pusher.image('multi', '', {
    layers: [textLayer('who', 'theirs')],
    platform: { os: 'linux', architecture: 's390x' },
  })
  const index = await pusher.index('multi', 'v1', [
    { ...other, platform: { os: 'linux', architecture: 's390x' } },
    { ...other, platform: { os: 'unknown', architecture: 'unknown' } },
    { ...child, platform: thisPlatform },
  ])
  const store = openStore('multi')
  const resolved = await store.resolve(`${registry.host}/multi:v1`)
  assert.equal(resolved.digest, child.digest)
  const byIndex = await store.ensure({ ref: `${registry.host}/multi@${index.digest}` })
  assert.equal(byIndex.digest, child.digest)
  assert.equal(readIn(byIndex.squashfsPath, 'who'), 'ours')
  await pusher.index('multi', 'foreign', [
    { ...other, platform: { os: 'linux', architecture: 's390x' } },
  ])
  await assert.rejects(
    store.resolve(`${registry.host}/multi:foreign`),
    /no variant for linux\/\w+ \(it has linux\/s390x\); build it with --platform/,
  )
  await assert.rejects(
    store.ensure({ ref: `${registry.host}/multi@${other.digest}` }),
    /is built for linux\/s390x, this host runs linux/,
  )
})

test("docker's media types, zstd, plain and repeated layers", async () => {
  const first = layer(tarOfEntries([{ path: 'a', content: 'gzip' }]))
  const second = layer(tarOfEntries([{ path: 'b', content: 'zstd' }]), 'zstd')
  const third = layer(tarOfEntries([{ path: 'c', content: 'none' }]), 'none')
  await pusher.image('mixed', 'v1', { layers: [first, second, third, first], docker: true })
  const local = await openStore('mixed').ensure({ ref: `${registry.host}/mixed:v1` })
  withMounted(home.path, local.squashfsPath, (root) => {
    assert.deepEqual(readdirSync(root).sort(), ['a', 'b', 'c'])
  })
})

test('callers at the same time share one pull', async () => {
  const image = textLayer('once', 'x'.repeat(10_000))
  await pusher.image('shared', 'v1', { layers: [image] })
  network.seen.length = 0
  const store = openStore('shared')
  const ref = `${network.host}/shared:v1`
  const all = await Promise.all(Array.from({ length: 8 }, () => store.ensure({ ref })))
  assert.equal(new Set(all.map((local) => local.squashfsPath)).size, 1)
  const blob = `GET /v2/shared/blobs/${digestOf(image.bytes)}`
  assert.equal(network.seen.filter((line) => line === blob).length, 1)
  assert.deepEqual(readdirSync(join(home.path, 'shared/work')), [])
})

test('what is here is found without the network, and survives a restart', async () => {
  await pusher.image('kept', 'v1', { layers: [textLayer('f', 'kept')], config: { Cmd: ['x'] } })
  const resolved = await openStore('kept').resolve(`${network.host}/kept:v1`)
  const before = await openStore('kept').ensure(resolved)
  network.seen.length = 0
  const store = openStore('kept')
  assert.deepEqual(store.find(resolved.digest), before)
  assert.deepEqual(await store.ensure(resolved), before)
  assert.equal((await store.resolve(resolved.ref)).digest, resolved.digest)
  assert.deepEqual(network.seen, [])
  assert.equal(store.find(`sha256:${'0'.repeat(64)}`), undefined)
})

test('an image that is not whole is removed when the store is opened, and made again', async () => {
  await pusher.image('cut', 'v1', { layers: [textLayer('f', 'whole')] })
  const ref = `${registry.host}/cut:v1`
  const local = await openStore('cut').ensure({ ref })
  truncateSync(local.squashfsPath, 100)
  mkdirSync(join(home.path, 'cut/images/rubbish'))
  mkdirSync(join(home.path, 'cut/work/half'))
  const store = openStore('cut')
  assert.equal(store.find(local.digest), undefined)
  assert.deepEqual(readdirSync(join(home.path, 'cut/images')), [])
  assert.deepEqual(readdirSync(join(home.path, 'cut/work')), [])
  assert.equal(readIn((await store.ensure({ ref })).squashfsPath, 'f'), 'whole')
})

test('what is not in use is removed, after a grace for what was just asked for', async () => {
  for (const name of ['old', 'used']) {
    await pusher.image('collected', name, { layers: [textLayer('f', name)] })
  }
  let now = 1_000_000
  const clock = { now: () => now, sleep: async () => {} }
  const store = openStore('collected', { clock, graceMs: 1000 })
  const old = await store.ensure({ ref: `${registry.host}/collected:old` })
  const used = await store.ensure({ ref: `${registry.host}/collected:used` })
  assert.equal(await store.collect(new Set([used.digest])), 0)
  now += 2000
  assert.equal(await store.collect(new Set([used.digest])), 1)
  assert.equal(store.find(old.digest), undefined)
  assert.equal(existsSync(old.squashfsPath), false)
  assert.equal(existsSync(used.squashfsPath), true)
})

test('a failed pull leaves nothing and can be repeated', async () => {
  await pusher.image('broken', 'v1', {
    layers: [layer(Buffer.alloc(2048, 'not a tar ')), textLayer('f', 'x')],
  })
  const store = openStore('broken')
  const ref = `${registry.host}/broken:v1`
  for (let i = 0; i < 2; i++) {
    await assert.rejects(store.ensure({ ref }), (error) => isFault(error, 'image_unavailable'))
    assert.deepEqual(readdirSync(join(home.path, 'broken/work')), [])
  }
  await pusher.image('broken', 'v1', { layers: [textLayer('f', 'mended')] })
  assert.equal(readIn((await store.ensure({ ref })).squashfsPath, 'f'), 'mended')
})

test('killed in the middle of a pull, the next one finds no trace and succeeds', async () => {
  const image = textLayer('f', 'y'.repeat(200_000))
  await pusher.image('killed', 'v1', { layers: [image] })
  const dir = join(home.path, 'killed')
  const ref = `${network.host}/killed:v1`
  const script = `
    import { openImageStore } from ${JSON.stringify(new URL('store.ts', import.meta.url).href)}
    import { createLogger } from '#sys/log.ts'
    const store = openImageStore({ dir: ${JSON.stringify(dir)}, mirrors: {}, registries: [], log: createLogger('child') })
    await store.ensure({ ref: ${JSON.stringify(ref)} })`
  network.next(digestOf(image.bytes), { kind: 'stall', afterBytes: 10 })
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: 'ignore',
    cwd: new URL('.', import.meta.url).pathname,
  })
  const work = join(dir, 'work')
  const blobs = () =>
    existsSync(work) ? readdirSync(work, { recursive: true, encoding: 'utf8' }).join() : ''
  await eventually('the child begins', () => blobs().includes(digestOf(image.bytes).slice(7)))
  child.kill('SIGKILL')
  await once(child, 'exit')
  assert.equal(readdirSync(work).length, 1)
  const store = openStore('killed')
  assert.deepEqual(readdirSync(work), [])
  assert.deepEqual(readdirSync(join(dir, 'images')), [])
  assert.equal(readIn((await store.ensure({ ref })).squashfsPath, 'f').length, 200_000)
})
