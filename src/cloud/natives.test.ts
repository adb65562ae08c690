import assert from 'node:assert/strict'
import { readdirSync, readFileSync, existsSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { callJson, httpRequest } from '#sys/http-client.ts'
import { runOk } from '#sys/process.ts'
import { eventually } from '#sys/test-support.ts'
import { ensureSecrets } from './authority.ts'
import { chooseState } from './choose.ts'
import { loadConfig } from './config.ts'
import { destroy } from './destroy.ts'
import { down } from './down.ts'
import type { Home } from './home.ts'
import { mountsBelow } from './mounts.ts'
import { chooseBesideNeighbours } from './neighbours.ts'
import { nativeParts } from './plan.ts'
import { terminalProgress } from './progress.ts'
import { writeState, type CloudState } from './state.ts'
import { readStatus } from './status.ts'
import { superviseParts } from './supervisor.ts'
import { quiet, temporaryHome } from './test-support.ts'
import { Writable } from 'node:stream'

/** The real natives of one cloud: started, used, stopped with everything gone, started again with their data. */

let home: Home
let state: CloudState
const progress = terminalProgress(new Writable({ write: (_chunk, _encoding, done) => done() }))

before(async () => {
  home = temporaryHome()
  const config = loadConfig(home, {})
  state = await chooseBesideNeighbours(home, async (neighbours) => {
    const choice = { config, overrides: {}, kept: undefined, neighbours, mayMovePorts: true }
    const chosen = (await chooseState(choice)).state
    writeState(home, chosen)
    return chosen
  })
  await ensureSecrets(home, config.domain)
})
after(async () => {
  await destroy({ home, progress })
  assert.ok(!existsSync(home.dir))
})

/** Runs the natives under a supervisor while `act` does, and leaves them running. */
async function withNatives(act: () => Promise<void>): Promise<void> {
  const stop = new AbortController()
  const parts = nativeParts({ home, state, config: loadConfig(home, {}) })
  const done = superviseParts({ home, parts, log: quiet, signal: stop.signal })
  try {
    const reports = () => Object.values(readStatus(home, process.pid)?.parts ?? {})
    await eventually(
      'all natives are ready',
      () => {
        const failed = reports().find((report) => report.failures > 2)
        if (failed) throw new Error(failed.message)
        return reports().length === 5 && reports().every((report) => report.state === 'ready')
      },
      180_000,
    )
    await act()
  } finally {
    stop.abort()
    await done
  }
}

const sql = (text: string) =>
  runOk('psql', ['-h', home.postgresSockets, '-U', 'hangar', '-d', 'hangar', '-Atc', text])

const docker = <T>(path: string) =>
  callJson<T>(`unix:${home.dockerSocket}`, { method: 'GET', path, headers: { host: 'docker' } })

const processesOfHome = () =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(home.dir)
      } catch {
        return false
      }
    })

test('the natives start, work, stop without a trace, and keep their data', async () => {
  const forwarding = readFileSync('/proc/sys/net/ipv4/ip_forward', 'utf8')
  await withNatives(async () => {
    assert.equal((await sql('show fsync')).trim(), 'on')
    assert.equal((await sql('show listen_addresses')).trim(), '')
    await sql('create table kept (x int); insert into kept values (42)')

    const registry = await httpRequest(`http://127.0.0.1:${state.ports.registry}`, {
      method: 'GET',
      path: '/v2/',
    })
    registry.body.resume()
    assert.equal(
      registry.headers['www-authenticate'],
      `Bearer realm="http://127.0.0.1:${state.ports.api}/registry/token",service="hangar-registry"`,
    )

    const info = await docker<{ DockerRootDir: string; CgroupDriver: string }>('/info')
    assert.equal(info.DockerRootDir, home.data('docker'))
    const networks = await docker<{ Name: string }[]>('/networks')
    assert.ok(!networks.some((network) => network.Name === 'bridge'))
    assert.equal(readFileSync('/proc/sys/net/ipv4/ip_forward', 'utf8'), forwarding)
  })

  assert.ok(processesOfHome().length >= 5, 'the natives outlive their supervisor')
  assert.equal(await down({ home, progress }), true)
  assert.deepEqual(processesOfHome(), [])
  assert.deepEqual(mountsBelow(home.dir), [])
  assert.equal(await down({ home, progress }), false, 'nothing runs any more')

  await withNatives(async () => {
    assert.equal((await sql('select x from kept')).trim(), '42')
  })
})

test('a folder without our marker is never removed', async () => {
  const other = { ...home, marker: `${home.dir}/no-such-marker` }
  await assert.rejects(destroy({ home: other, progress }), /not a Hangar home; nothing was removed/)
  assert.ok(existsSync(home.state))
})
