import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { isFault } from '#core/fault.ts'
import { freePort } from '#sys/test-support.ts'
import { createPusher, digestOf, type Pusher } from '../../../test/images/push.ts'
import { startImageRegistry, type ImageRegistry } from '../../../test/images/registry.ts'
import { quietLog, temporaryFolder } from './fixtures.ts'
import { parseReference } from './reference.ts'
import { parseChallenge } from './registry-auth.ts'
import {
  createRegistryClient,
  endpointsFor,
  type RegistryClientOptions,
} from './registry-client.ts'
import { startNetwork, startTokenRealm } from './registry-fixtures.ts'

const home = temporaryFolder()
const layerBytes = randomBytes(400_000)
const descriptor = { mediaType: '', digest: digestOf(layerBytes), size: layerBytes.length }
let registry: ImageRegistry
let pusher: Pusher

before(async () => {
  registry = await startImageRegistry({ dir: join(home.path, 'registry') })
  pusher = createPusher(registry.url)
  for (const repository of ['app', 'library/app']) {
    await pusher.image(repository, 'v1', { layers: [{ mediaType: '', bytes: layerBytes }] })
  }
})
after(async () => {
  await registry.close()
  home.remove()
})

const clientOf = (options: Partial<RegistryClientOptions> = {}) =>
  createRegistryClient({ mirrors: {}, registries: [], log: quietLog(), ...options })

let count = 0
const target = () => ({
  path: join(home.path, `blob-${count++}`),
  signal: new AbortController().signal,
})

test('a blob that was cut off is continued where it stopped', async () => {
  const network = await startNetwork(registry.url)
  network.next('/blobs/', { kind: 'cut', afterBytes: 100_000 })
  network.next('/blobs/', { kind: 'cut', afterBytes: 50_000 })
  const to = target()
  await clientOf().blobToFile(parseReference(`${network.host}/app:v1`), descriptor, to)
  assert.deepEqual(readFileSync(to.path), layerBytes)
  const asked = network.seen.filter((line) => line.includes('/blobs/'))
  assert.deepEqual(
    asked.map((line) => line.endsWith(' range')),
    [false, true, true],
  )
  await network.close()
})

test('a registry that falls silent is left and asked again', async () => {
  const network = await startNetwork(registry.url)
  network.next('/blobs/', { kind: 'stall', afterBytes: 100_000 })
  const to = target()
  const client = clientOf({ idleMs: 200 })
  await client.blobToFile(parseReference(`${network.host}/app:v1`), descriptor, to)
  assert.deepEqual(readFileSync(to.path), layerBytes)
  await network.close()
})

test('one wrong byte is noticed, and the next endpoint has the right ones', async () => {
  const network = await startNetwork(registry.url)
  network.next('/blobs/', { kind: 'corrupt' })
  const mirrored = clientOf({ mirrors: { 'docker.io': [network.url, registry.url] } })
  const to = target()
  await mirrored.blobToFile(parseReference('app:v1'), descriptor, to)
  assert.deepEqual(readFileSync(to.path), layerBytes)
  network.next('/blobs/', { kind: 'corrupt' })
  await assert.rejects(
    clientOf().blobToFile(parseReference(`${network.host}/app:v1`), descriptor, target()),
    (error) => isFault(error, 'image_unavailable') && /sent wrong bytes/.test(error.message),
  )
  await network.close()
})

test('a corrupt manifest is refused when its digest is known', async () => {
  const network = await startNetwork(registry.url)
  const { digest } = await clientOf().manifest(parseReference(`${registry.host}/app:v1`))
  network.next('/manifests/', { kind: 'corrupt' })
  await assert.rejects(
    clientOf().manifest(parseReference(`${network.host}/app@${digest}`)),
    /sent wrong bytes for manifest/,
  )
  await network.close()
})

test('mirrors are asked in order, then the registry itself', async () => {
  const first = await startNetwork(registry.url)
  const second = await startNetwork(registry.url)
  const own = await startNetwork(registry.url)
  const deaf = `http://127.0.0.1:${await freePort()}`
  const client = clientOf({ mirrors: { [own.host]: [deaf, first.url, second.url] } })
  const reference = parseReference(`${own.host}/app:v1`)
  await client.manifest(reference)
  assert.deepEqual([first.seen.length, second.seen.length, own.seen.length], [1, 0, 0])
  first.next('/manifests/', { kind: 'status', status: 404 })
  await client.manifest(reference)
  assert.deepEqual([second.seen.length, own.seen.length], [1, 0])
  first.next('/manifests/', { kind: 'status', status: 403 })
  second.next('/manifests/', { kind: 'status', status: 404 })
  await client.manifest(reference)
  assert.equal(own.seen.length, 1)
  for (const network of [first, second, own]) await network.close()
})

test('a busy registry is asked again, a missing image is not', async () => {
  const network = await startNetwork(registry.url)
  network.next('/manifests/', { kind: 'status', status: 503 })
  network.next('/manifests/', { kind: 'status', status: 429 })
  await clientOf().manifest(parseReference(`${network.host}/app:v1`))
  assert.equal(network.seen.length, 3)
  await assert.rejects(
    clientOf().manifest(parseReference(`${network.host}/app:never`)),
    (error) =>
      isFault(error, 'image_unavailable') &&
      error.message.includes(`${network.host}/app:never`) &&
      /has no such image/.test(error.message) &&
      /Check the spelling/.test(error.message),
  )
  assert.equal(network.seen.length, 4)
  await network.close()
})

test('a registry that nobody serves is named with the reason', async () => {
  const host = `127.0.0.1:${await freePort()}`
  await assert.rejects(
    clientOf().manifest(parseReference(`${host}/app`)),
    (error) =>
      isFault(error, 'image_unavailable') &&
      error.message.includes(`http://${host} fails: ECONNREFUSED`),
  )
})

test('a registry with tokens is pulled from, anonymously and by name', async () => {
  const wanted = `Basic ${Buffer.from('me:secret').toString('base64')}`
  const realm = await startTokenRealm(home.path, (authorization) => authorization === wanted)
  const locked = await startImageRegistry({ dir: join(home.path, 'locked'), auth: realm.auth })
  const bearer = `Bearer ${await realm.token('app', ['pull', 'push'])}`
  await createPusher(locked.url, bearer).image('app', 'v1', {
    layers: [{ mediaType: '', bytes: layerBytes }],
  })
  const reference = parseReference(`${locked.host}/app:v1`)
  await assert.rejects(clientOf().manifest(reference), /wants credentials/)
  const access = { host: locked.host, username: 'me', password: 'secret', insecure: true }
  await assert.rejects(
    clientOf({ registries: [{ ...access, password: 'wrong' }] }).manifest(reference),
    /check the user name and password/,
  )
  realm.asked.length = 0
  const client = clientOf({ registries: [access] })
  await client.manifest(reference)
  const to = target()
  await client.blobToFile(reference, descriptor, to)
  assert.deepEqual(readFileSync(to.path), layerBytes)
  assert.deepEqual(realm.asked, [{ scope: 'repository:app:pull', authorization: wanted }])
  await locked.close()
  await realm.close()
})

test('an anonymous token is enough where the registry gives one', async () => {
  const realm = await startTokenRealm(home.path, (authorization) => authorization === undefined)
  const open = await startImageRegistry({ dir: join(home.path, 'registry'), auth: realm.auth })
  await clientOf().manifest(parseReference(`${open.host}/app:v1`))
  assert.equal(realm.asked.length, 1)
  await open.close()
  await realm.close()
})

test('a registry with plain passwords is pulled from', async () => {
  const passwords = join(home.path, 'htpasswd')
  // "open sesame", by bcrypt.
  writeFileSync(passwords, 'me:$2y$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy\n')
  const auth = `  htpasswd:\n    realm: test\n    path: ${passwords}\n`
  const locked = await startImageRegistry({ dir: join(home.path, 'registry'), auth })
  const reference = parseReference(`${locked.host}/app:v1`)
  await assert.rejects(clientOf().manifest(reference), /refuses access: it wants credentials/)
  const access = { host: locked.host, username: 'me', insecure: true }
  await clientOf({ registries: [{ ...access, password: 'open sesame' }] }).manifest(reference)
  await assert.rejects(
    clientOf({ registries: [{ ...access, password: 'wrong' }] }).manifest(reference),
    /refuses access/,
  )
  await locked.close()
})

test('where to ask: plain HTTP only for loopback and where it is allowed', () => {
  const insecure = [{ host: 'lan:5000', username: '', password: '', insecure: true }]
  const urls = (registry: string, mirrors: Record<string, string[]> = {}) =>
    endpointsFor(registry, { mirrors, registries: insecure }).map((endpoint) => endpoint.url)
  assert.deepEqual(urls('ghcr.io'), ['https://ghcr.io'])
  assert.deepEqual(urls('lan:5000'), ['http://lan:5000'])
  assert.deepEqual(urls('127.0.0.1:5000'), ['http://127.0.0.1:5000'])
  assert.deepEqual(urls('localhost'), ['http://localhost'])
  assert.deepEqual(urls('127.0.0.1.example.com'), ['https://127.0.0.1.example.com'])
  assert.deepEqual(urls('docker.io', { 'docker.io': ['http://mirror/'] }), [
    'http://mirror',
    'https://registry-1.docker.io',
  ])
})

test('a mirror that is no URL is refused when the client is made', () => {
  assert.throws(
    () => clientOf({ mirrors: { 'docker.io': ['127.0.0.1:5000'] } }),
    (error) => isFault(error, 'invalid') && /"127.0.0.1:5000" of docker.io/.test(error.message),
  )
})

test('a challenge is read with and without quotes', () => {
  assert.deepEqual(
    parseChallenge('Bearer realm="https://a/t?x=1,2",service=reg,scope="a:b:pull,push"'),
    {
      scheme: 'bearer',
      parameters: { realm: 'https://a/t?x=1,2', service: 'reg', scope: 'a:b:pull,push' },
    },
  )
  assert.deepEqual(parseChallenge('Basic realm="say \\"x\\""')?.parameters, { realm: 'say "x"' })
  assert.equal(parseChallenge(''), undefined)
})
