import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { isFault } from '#core/fault.ts'
import { newLife } from '../machine-life.ts'
import { openStore, type MachineRecord } from './index.ts'

function folder(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'hangar-store-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

const record = (id: string, index: number): MachineRecord => ({
  id,
  name: `name-${id}`,
  app: { id: 'app_1', name: 'web', org: 'personal', network: 3 },
  index,
  region: 'ord',
  instanceId: '01A',
  config: { image: 'busybox', env: { A: 'b' } },
  image: {
    registry: 'r',
    repository: 'busybox',
    tag: 'latest',
    digest: 'sha256:0',
    labels: null,
    ref: 'r/busybox:latest@sha256:0',
    size: 1,
    exposed_ports: [],
  },
  life: newLife('start'),
  cordoned: false,
  ready: false,
  ip4: '',
  run: 0,
  restarts: [],
  startWithHost: false,
  lastError: null,
  createdAt: 1,
  updatedAt: 1,
  changedAt: 1,
  destroyedAt: null,
})

test('machines, counters and secrets survive a reopening; numbers never repeat', (t) => {
  const dir = folder(t)
  let store = openStore(dir)
  store.machines.save(record('a', 2))
  const last = store.nextCounter()
  store.secrets.put('app_1', { version: 3, values: { TOKEN: 'geheim' } })
  store.close()
  store = openStore(dir)
  assert.deepEqual(store.machines.get('a'), record('a', 2))
  assert.ok(store.nextCounter() > last)
  assert.deepEqual(store.secrets.get('app_1').values, { TOKEN: 'geheim' })
  store.close()
})

test('secrets are unreadable on disk, the key is private, and a late older version is ignored', (t) => {
  const dir = folder(t)
  const store = openStore(dir)
  store.secrets.put('app_1', { version: 3, values: { TOKEN: 'geheimnis-in-klartext' } })
  store.secrets.put('app_1', { version: 2, values: { TOKEN: 'alt' } })
  assert.equal(store.secrets.get('app_1').values['TOKEN'], 'geheimnis-in-klartext')
  store.close()
  assert.ok(!readFileSync(join(dir, 'host.sqlite')).includes('geheimnis-in-klartext'))
  assert.equal(statSync(join(dir, 'secrets.key')).mode & 0o777, 0o600)
})

test('the smallest free machine number is given, and never one in use', (t) => {
  const store = openStore(folder(t))
  t.after(() => store.close())
  assert.equal(store.machines.freeIndex(), 2)
  store.machines.save(record('a', 2))
  store.machines.save(record('b', 3))
  assert.equal(store.machines.freeIndex(), 4)
  store.machines.save({ ...record('a', 2), destroyedAt: 5 })
  assert.equal(store.machines.freeIndex(), 2)
  store.machines.save(record('c', 2))
  assert.throws(() => store.machines.save(record('d', 3)), /UNIQUE/)
})

test('a transaction that throws leaves nothing behind', (t) => {
  const dir = folder(t)
  const store = openStore(dir)
  assert.throws(() =>
    store.transaction(() => {
      store.leases.save({
        machineId: 'a',
        nonce: 'n',
        owner: 'o',
        description: '',
        expiresAt: 1,
      })
      throw new Error('stop')
    }),
  )
  assert.equal(store.leases.find('a'), undefined)
  store.close()
})

test('a second process on the same folder is refused with words', (t) => {
  const dir = folder(t)
  const store = openStore(dir)
  t.after(() => store.close())
  assert.throws(
    () => openStore(dir),
    (error) => isFault(error, 'conflict') && /another host process/.test(error.message),
  )
})

test('events are newest first and bounded', (t) => {
  const dir = folder(t)
  let store = openStore(dir)
  for (let i = 0; i < 230; i++) {
    store.history.addEvent('a', {
      id: String(i),
      type: 'start',
      status: 'started',
      source: 'user',
      timestamp: i,
    })
  }
  const before = store.history.events('a').map((event) => event.id)
  assert.equal(before.length, 200)
  assert.equal(before[0], '229')
  store.close()
  store = openStore(dir)
  assert.deepEqual(
    store.history.events('a').map((event) => event.id),
    before,
  )
  store.close()
})
