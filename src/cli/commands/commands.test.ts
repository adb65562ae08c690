import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Command } from '../command.ts'
import { globalFlagsOf } from '../flags.ts'
import {
  hangar,
  startApi,
  temporaryFolder,
  testApp,
  testMachine,
  testRelease,
} from '../test-support.ts'
import { verbs } from './index.ts'

const viewer = {
  'GET /api/v1/viewer': {
    json: { email: 'me', organizations: [{ slug: 'personal', name: 'Personal' }] },
  },
}

test('help names every verb, those of the cloud too; a wrong word gets a suggestion', async () => {
  const help = await hangar(['--help'])
  assert.equal(help.code, 0)
  for (const verb of ['up', 'down', 'destroy', 'doctor', 'launch', 'deploy', 'machine', 'env']) {
    assert.match(help.out, new RegExp(`^  ${verb} `, 'm'))
  }
  assert.equal((await hangar(['m', 'run', '--help'])).code, 0)
  assert.match((await hangar(['help', 'scale', 'count'])).out, /--max-per-region/)
  const wrong = await hangar(['machine', 'lst'])
  assert.equal(wrong.code, 1)
  assert.match(wrong.err, /unknown command "lst" for "hangar machine"[^]*\tlist/)
  assert.match((await hangar(['apps', 'list', '--jsno'])).err, /unknown flag: --jsno[^]*--json/)
  assert.match((await hangar(['apps', 'list', 'x'])).err, /takes no arguments/)
})

test('the table of verbs says of each what its file says', async () => {
  for (const { load, ...entry } of verbs) {
    const { name, aliases, summary } = await load()
    assert.deepEqual({ name, summary, ...(aliases ? { aliases } : {}) }, entry)
  }
})

test('every command has flags of its own only, and letters that mean one thing', async () => {
  const check = (command: Command, path: string): void => {
    const flags = [...(command.flags ?? []), ...globalFlagsOf(command)]
    const words = flags.flatMap(({ name, short, aliases = [] }) => [
      `--${name}`,
      ...aliases.map((alias) => `--${alias}`),
      ...(short ? [`-${short}`] : []),
    ])
    const twice = words.filter((word, i) => words.indexOf(word) !== i)
    assert.deepEqual(twice, [], path)
    assert.ok(command.run ?? command.commands, `${path} does nothing`)
    for (const one of command.commands ?? []) check(one, `${path} ${one.name}`)
  }
  for (const { name, load } of verbs) check(await load(), name)
})

test('a cloud that does not answer, a missing token and a refused one each say what to do', async (t) => {
  const gone = await hangar(['status'], { env: { HANGAR_API: 'http://127.0.0.1:1' } })
  assert.equal(gone.code, 1)
  assert.match(
    gone.err,
    /the cloud at http:\/\/127.0.0.1:1 does not answer; start it with: hangar up/,
  )
  assert.doesNotMatch(gone.err, /at .*\.ts:/)
  const home = temporaryFolder(t)
  const none = await hangar(['status'], { env: { FLY_API_TOKEN: '', HANGAR_HOME: home } })
  assert.match(none.err, /no access token: .*token is missing/)
  const api = await startApi({
    'GET /api/v1/status': { status: 401, json: { error: 'no such token', status: 'unauthorized' } },
  })
  t.after(api.close)
  const refused = await hangar(['status'], { api })
  assert.match(refused.err, /refuses the access token \(no such token\)/)
})

test('apps list shows flyctl’s columns; -q names; --json passes on', async (t) => {
  const api = await startApi({
    ...viewer,
    'GET /v1/apps': { json: { apps: [testApp('web'), testApp('api', { status: 'pending' })] } },
    'GET /api/v1/apps/web/releases': {
      json: { releases: [{ ...testRelease, created_at: '2020-02-03T04:05:06Z' }] },
    },
  })
  t.after(api.close)
  const table = await hangar(['apps', 'list'], { api })
  assert.deepEqual(table.out.trimEnd().split('\n'), [
    'NAME  OWNER     STATUS    LATEST DEPLOY',
    'api   personal  pending',
    'web   personal  deployed  Feb 3 2020 04:05',
  ])
  assert.equal((await hangar(['apps', 'ls', '-q'], { api })).out, 'api\nweb\n')
  const json = JSON.parse((await hangar(['apps', 'list', '-j'], { api })).out) as { name: string }[]
  assert.deepEqual(
    json.map(({ name }) => name),
    ['api', 'web'],
  )
  assert.equal(api.seen[0]?.authorization, 'Bearer secret-token')
})

test('apps create and destroy; what cannot be asked names the flag', async (t) => {
  const api = await startApi({
    ...viewer,
    'POST /v1/apps': { status: 201, json: testApp('fresh') },
    'GET /v1/apps/fresh': { json: testApp('fresh') },
    'DELETE /v1/apps/fresh': { status: 202 },
  })
  t.after(api.close)
  const made = await hangar(['apps', 'create', 'fresh'], { api })
  assert.equal(made.out, 'New app created: fresh\n')
  assert.deepEqual(api.asked('POST /v1/apps')[0]?.json, { app_name: 'fresh', org_slug: 'personal' })
  const unsure = await hangar(['apps', 'destroy', 'fresh'], { api })
  assert.equal(unsure.code, 1)
  assert.match(unsure.err, /give --yes/)
  assert.equal(api.asked('DELETE /v1/apps/fresh').length, 0)
  const gone = await hangar(['apps', 'destroy', 'fresh', '--yes'], { api })
  assert.equal(gone.out, 'Destroyed app fresh\n')
  const missing = await hangar(['apps', 'destroy', 'nobody', '-y'], { api })
  assert.match(
    missing.err,
    /Could not find App "nobody". Create it with: hangar apps create nobody/,
  )
})

test('status of an app: fields, machines, and what deploy does not manage', async (t) => {
  const checks = [{ name: 'servicecheck-00', status: 'passing', output: 'ok', updated_at: '' }]
  const api = await startApi({
    'GET /v1/apps/demo': { json: testApp('demo') },
    'GET /v1/apps/demo/machines': {
      json: [testMachine('bb', { checks }), testMachine('aa', {}, { metadata: {} })],
    },
    'GET /api/v1/apps/demo/releases': { json: { releases: [testRelease] } },
  })
  t.after(api.close)
  const { out } = await hangar(['status', '-a', 'demo'], { api })
  assert.match(out, /^App\n {2}Name {5}= demo\n {2}Owner {4}= personal\n/)
  assert.match(out, /Image {4}= 127.0.0.1:4285\/demo:deployment-1$/m)
  assert.match(out, /URL {6}= http:\/\/demo.hangar.localhost:8080/)
  assert.match(out, /PROCESS {2}ID {2}VERSION {2}REGION {2}STATE {4}ROLE {2}CHECKS/)
  assert.match(out, /^app {6}bb {2}3 .* started .* 1 total, 1 passing/m)
  assert.match(out, /Found machines that aren't part of a deploy/)
  const json = JSON.parse((await hangar(['status', '-a', 'demo', '--json'], { api })).out) as {
    Version: number
    Machines: { id: string }[]
  }
  assert.equal(json.Version, 4)
  assert.deepEqual(
    json.Machines.map(({ id }) => id),
    ['bb'],
  )
})

test('status without an app shows the cloud: hosts, apps, URLs', async (t) => {
  const host = {
    id: 'ord-1',
    region: 'ord',
    runtime: 'container',
    isolation: 'container',
    runtime_note: 'containers by crun: a weaker wall than a VM',
    machines: 2,
    capacity: { cpus: 8, memory_mb: 4096 },
    used: { cpus: 2, memory_mb: 512, machines: 2 },
    reachable: true,
  }
  const api = await startApi({
    ...viewer,
    'GET /api/v1/status': {
      json: {
        version: '0.1.0',
        domain: 'hangar.localhost',
        http_port: 8080,
        https_port: 8443,
        hosts: [host],
        apps: 1,
      },
    },
    'GET /v1/apps': { json: { apps: [testApp('demo')] } },
    'GET /v1/apps/demo/machines': {
      json: [testMachine('a'), testMachine('b', { state: 'stopped' })],
    },
  })
  t.after(api.close)
  const { out, code } = await hangar(['status'], { api })
  assert.equal(code, 0)
  assert.match(out, /^ord-1 {2}ord {5}ok .*512\/4096 MB {2}container \(weaker wall\)$/m)
  assert.match(out, /^ {2}containers by crun: a weaker wall than a VM$/m)
  assert.match(out, /^demo {2}deployed {2}1 started, 1 stopped {2}http:\/\/demo/m)
})

test('logs: flyctl’s line, and a follow that goes on where it broke', async (t) => {
  const line = (ns: string, message: string) => ({
    ns,
    timestamp: '2026-11-23T05:40:00.123456789Z',
    app: 'demo',
    region: 'ord',
    instance: 'm1',
    level: 'info',
    provider: 'app',
    message,
  })
  const abort = new AbortController()
  let asked = 0
  const api = await startApi({
    'GET /v1/apps/demo': { json: testApp('demo') },
    'GET /api/v1/apps/demo/log-stream': ({ path }) => {
      asked++
      if (!path.includes('follow=true')) return { lines: [line('1', 'one')] }
      if (asked === 2) return { lines: [line('1', 'one'), line('2', 'two')], cut: true }
      if (asked === 3) return { status: 504, json: { error: 'down', status: 'host_unreachable' } }
      assert.match(path, /since=\d+$/)
      // What came before is shown by now.
      if (asked === 5) abort.abort()
      return { lines: [line('2', 'two'), line('3', 'three')], cut: true }
    },
  })
  t.after(api.close)
  const past = await hangar(['logs', '-a', 'demo', '--no-tail'], { api })
  assert.equal(past.out, '2026-11-23T05:40:00Z app[m1] ord [info]one\n')
  const followed = await hangar(['logs', '-a', 'demo'], { api, signal: abort.signal })
  assert.equal(followed.code, 127)
  assert.deepEqual(
    followed.out
      .trimEnd()
      .split('\n')
      .map((text) => text.split(']').at(-1)),
    ['one', 'two', 'three'],
  )
})

test('secrets: staged, applied with the release followed, listed with their state', async (t) => {
  const machine = testMachine('m1', {
    events: [{ type: 'start', timestamp: Date.parse('2026-02-01') }],
  })
  const api = await startApi({
    'GET /v1/apps/demo': { json: testApp('demo') },
    'GET /v1/apps/demo/machines': { json: [machine] },
    'GET /api/v1/apps/demo/releases': { json: { releases: [] } },
    'POST /v1/apps/demo/secrets': { json: { version: 2, secrets: [] } },
    'POST /api/v1/apps/demo/secrets/apply': { status: 201, json: testRelease },
    'GET /api/v1/apps/demo/releases/rel_1/progress': {
      lines: [
        { seq: 0, at: '', level: 'info', message: 'Updating machine m1' },
        { seq: 1, at: '', level: 'info', message: 'done', status: 'complete' },
      ],
    },
    'GET /v1/apps/same': { json: testApp('same') },
    'GET /v1/apps/same/secrets': { json: { version: 5, secrets: [] } },
    'POST /v1/apps/same/secrets': { json: { version: 5, secrets: [] } },
    'GET /v1/apps/demo/secrets': {
      json: {
        version: 1,
        secrets: [
          { name: 'OLD', digest: 'd1', created_at: '', updated_at: '2026-01-01T00:00:00Z' },
          { name: 'NEW', digest: 'd2', created_at: '', updated_at: '2026-03-01T00:00:00Z' },
        ],
      },
    },
  })
  t.after(api.close)
  const stage = await hangar(['secrets', 'set', 'A="b=c" # d', '-a', 'demo', '--stage'], { api })
  assert.match(stage.out, /have been staged/)
  assert.deepEqual(api.asked('POST /v1/apps/demo/secrets')[0]?.json, {
    values: { A: '"b=c" # d' },
  })
  const piped = await hangar(['secrets', 'set', 'KEY=-', '-a', 'demo'], { api, stdin: 'line\n2\n' })
  assert.equal(piped.code, 0)
  assert.match(piped.out, /Updating machine m1/)
  assert.deepEqual(api.asked('POST /v1/apps/demo/secrets')[1]?.json, {
    values: { KEY: 'line\n2\n' },
  })
  await hangar(['secrets', 'unset', 'A', 'B', '-a', 'demo'], { api })
  assert.deepEqual(api.asked('POST /v1/apps/demo/secrets')[2]?.json, {
    values: { A: null, B: null },
  })
  const typo = await hangar(['secrets', 'unset', 'NOPE', '-a', 'same'], { api })
  assert.match(typo.err, /app same has no secret NOPE/)
  assert.match(typo.out, /^No change detected to secrets\. Skipping release\.$/m)
  assert.equal(api.asked('POST /api/v1/apps/same/secrets/apply').length, 0)
  const list = await hangar(['secrets', 'list', '-a', 'demo'], { api })
  assert.match(list.out, /^OLD {4}d1 {6}Deployed$/m)
  assert.match(list.out, /^\* NEW {2}d2 {6}Staged$/m)
})

test('a secret that is no pair is not repeated', async () => {
  const { err } = await hangar(['secrets', 'set', 'hunter2', '-a', 'demo'])
  assert.match(err, /NAME=VALUE/)
  assert.doesNotMatch(err, /hunter2/)
})

test('scale count: up in the region there is, down by --yes with a stop first, unknown groups named', async (t) => {
  let made = 0
  const machines = () => [testMachine('m1'), testMachine('m2', { created_at: '2026-06-01' })]
  const api = await startApi({
    'GET /v1/apps/demo': { json: testApp('demo') },
    'GET /v1/apps/demo/machines': () => ({ json: machines() }),
    'GET /v1/apps/demo/volumes': { json: [] },
    'GET /api/v1/apps/demo/definition': { json: { app: 'demo' } },
    'POST /v1/apps/demo/machines': () => ({ json: testMachine(`new${made++}`) }),
    'GET /v1/apps/demo/machines/new0/wait': { json: {} },
    'GET /v1/apps/demo/machines/new1/wait': { json: {} },
    'POST /v1/apps/demo/machines/m2/stop': { json: {} },
    'GET /v1/apps/demo/machines/m2/wait': { json: {} },
    'DELETE /v1/apps/demo/machines/m2': { json: {} },
  })
  t.after(api.close)
  const up = await hangar(['scale', 'count', '4', '-a', 'demo'], { api })
  assert.equal(up.code, 0, up.err)
  assert.match(up.out, /\+2 machines for group 'app' on region 'ord' of size 'shared-cpu-1x'/)
  assert.equal(made, 2)
  assert.deepEqual(api.asked('POST /v1/apps/demo/machines')[0]?.json, {
    region: 'ord',
    config: testMachine('x').config,
  })
  assert.match((await hangar(['scale', 'count', '1', '-a', 'demo'], { api })).err, /give --yes/)
  const down = await hangar(['scale', 'count', '-a', 'demo', '-y', '--', '-1'], { api })
  assert.match(down.out, /Destroyed m2 group:app/)
  const order = api.seen.filter(({ path }) => path.includes('/m2')).map(({ method }) => method)
  assert.deepEqual(order, ['POST', 'GET', 'DELETE'])
  const same = await hangar(['scale', 'count', '2', '-a', 'demo'], { api })
  assert.match(same.out, /already scaled to desired state/)
  const unknown = await hangar(['scale', 'count', 'web=2', '-a', 'demo'], { api })
  assert.match(unknown.err, /unknown process group web; valid names are app/)
  const show = await hangar(['scale', 'show', '-a', 'demo'], { api })
  assert.match(show.out, /^app {3}2 {6}shared {2}1 {5}256 MB {2}ord\(2\)$/m)
})

test('scale up with a volume takes a free one of its name first, then makes one as large as the largest', async (t) => {
  const volume = (id: string, attached: string | null) => ({
    id,
    name: 'data',
    region: 'ord',
    size_gb: 4,
    state: 'created',
    attached_machine_id: attached,
  })
  const mounts = [{ volume: 'vol_1', path: '/data' }]
  const api = await startApi({
    'GET /v1/apps/demo': { json: testApp('demo') },
    'GET /v1/apps/demo/machines': { json: [testMachine('m1', {}, { mounts })] },
    'GET /v1/apps/demo/volumes': {
      json: [
        { ...volume('vol_1', 'm1'), size_gb: 2 },
        volume('vol_2', null),
        { ...volume('vol_0', null), size_gb: 9, state: 'pending_destroy' },
      ],
    },
    'POST /v1/apps/demo/volumes': { json: volume('vol_3', null) },
    'POST /v1/apps/demo/machines': ({ json }) => ({
      json: testMachine('new', {}, (json as { config: object }).config),
    }),
    'GET /v1/apps/demo/machines/new/wait': { json: {} },
  })
  t.after(api.close)
  const { out, err } = await hangar(['scale', 'count', '3', '-a', 'demo'], { api })
  assert.match(out, /volume:vol_2/, err)
  assert.match(out, /volume:vol_3/)
  assert.deepEqual(
    api.asked('POST /v1/apps/demo/volumes').map(({ json }) => json),
    [{ name: 'data', region: 'ord', size_gb: 4 }],
  )
})

test('machine run sends what its flags say, and nothing more', async (t) => {
  const api = await startApi({
    'GET /v1/apps/demo': { json: testApp('demo') },
    'GET /v1/apps/demo/volumes': {
      json: [{ id: 'vol_1', name: 'data', state: 'created', attached_machine_id: null }],
    },
    'POST /v1/apps/demo/machines': { json: testMachine('m1') },
    'GET /v1/apps/demo/machines/m1/wait': { json: { ok: true } },
  })
  t.after(api.close)
  const line =
    'm run debian:12 -a demo --name one --region ord -e A=1 --port 80:8080/tcp:http --port 443:8080/tcp:http:tls --vm-size shared-cpu-2x --vm-memory 1gb --restart on-failure --volume data:/data --metadata k=v --autostop --skip-dns-registration -- sh -c true'
  const { code, out } = await hangar(line.split(' '), { api })
  assert.equal(code, 0)
  assert.match(out, /Success! A Machine has been successfully launched in app demo/)
  assert.deepEqual(api.asked('POST /v1/apps/demo/machines')[0]?.json, {
    name: 'one',
    region: 'ord',
    config: {
      image: 'debian:12',
      init: { cmd: ['sh', '-c', 'true'] },
      restart: { policy: 'on-failure' },
      mounts: [{ volume: 'vol_1', path: '/data' }],
      env: { A: '1' },
      metadata: { k: 'v' },
      guest: { cpus: 2, cpu_kind: 'shared', memory_mb: 1024 },
      dns: { skip_registration: true },
      services: [
        {
          protocol: 'tcp',
          internal_port: 8080,
          autostop: 'stop',
          ports: [
            { port: 80, handlers: ['http'] },
            { port: 443, handlers: ['http', 'tls'] },
          ],
        },
      ],
    },
  })
  await hangar(['m', 'run', 'x', '-a', 'demo', '--rm'], { api })
  assert.deepEqual(api.asked('POST /v1/apps/demo/machines')[1]?.json, {
    config: { image: 'x', restart: { policy: 'no' }, auto_destroy: true },
  })
  const wrong = await hangar(['m', 'run', 'x', '-a', 'demo', '--port', '80/tcp:nope'], { api })
  assert.match(wrong.err, /unknown handler "nope"/)
})

test('machine exec prints both streams and ends with the exit code', async (t) => {
  const api = await startApi({
    'GET /v1/apps/demo/machines/m1': { json: testMachine('m1') },
    'POST /v1/apps/demo/machines/m1/exec': {
      json: { exit_code: 3, stdout: 'out', stderr: 'err' },
    },
  })
  t.after(api.close)
  const result = await hangar(['m', 'exec', 'm1', 'ls -l', '-a', 'demo', '--timeout', '5'], { api })
  assert.deepEqual(result, { code: 3, out: 'out', err: 'err' })
  const bodies = api.asked('POST /v1/apps/demo/machines/m1/exec')
  assert.deepEqual(bodies[0]?.json, { cmd: 'ls -l', timeout: 5 })
  await hangar(['m', 'exec', 'm1', '-a', 'demo', '--', 'sh', '-c', 'exit 3'], { api })
  assert.deepEqual(bodies.length, 1)
  assert.deepEqual(api.asked('POST /v1/apps/demo/machines/m1/exec')[1]?.json, {
    command: ['sh', '-c', 'exit 3'],
  })
})

test('machine stop, start and destroy: a 408 is asked again, a running one needs --force', async (t) => {
  let waits = 0
  const api = await startApi({
    'GET /v1/apps/demo/machines/m1': { json: testMachine('m1') },
    'POST /v1/apps/demo/machines/m1/start': { json: { previous_state: 'stopped' } },
    'POST /v1/apps/demo/machines/m1/stop': { json: { ok: true } },
    'GET /v1/apps/demo/machines/m1/wait': () =>
      waits++ === 0 ? { status: 408, json: { error: 'not yet' } } : { json: { ok: true } },
    'DELETE /v1/apps/demo/machines/m1': { json: { ok: true } },
  })
  t.after(api.close)
  assert.equal(
    (await hangar(['m', 'start', 'm1', '-a', 'demo'], { api })).out,
    'm1 has been started\n',
  )
  assert.equal(waits, 2)
  await hangar(['m', 'stop', 'm1', '-a', 'demo', '-s', 'term', '--timeout', '7'], { api })
  assert.deepEqual(api.asked('POST /v1/apps/demo/machines/m1/stop')[0]?.json, {
    id: 'm1',
    signal: 'SIGTERM',
    timeout: '7s',
  })
  const refused = await hangar(['m', 'destroy', 'm1', '-a', 'demo'], { api })
  assert.match(refused.err, /started state and cannot be destroyed.*--force/)
  const forced = await hangar(['m', 'destroy', 'm1', '-a', 'demo', '--force'], { api })
  assert.match(forced.out, /m1 has been destroyed/)
  assert.equal(api.asked('DELETE /v1/apps/demo/machines/m1?kill=true').length, 1)
})

test('env prints exports for flyctl with the ports that the cloud chose', async () => {
  const { out } = await hangar(['env'], { env: { HANGAR_API: 'http://127.0.0.1:4999/v1' } })
  assert.match(out, /^export FLY_FLAPS_BASE_URL='http:\/\/127.0.0.1:4999'$/m)
  assert.match(out, /^export FLY_ACCESS_TOKEN='secret-token'$/m)
  assert.match(out, /^export FLY_SEND_METRICS='0'$/m)
})

test('regions, volumes, releases and version show what the server says', async (t) => {
  const volume = {
    id: 'vol_1',
    name: 'data',
    state: 'created',
    size_gb: 2,
    region: 'ord',
    zone: 'z1',
    encrypted: true,
    attached_machine_id: null,
    created_at: '2020-01-01T00:00:00Z',
    host_status: 'ok',
  }
  const api = await startApi({
    'GET /v1/platform/regions': {
      json: {
        Regions: [
          { code: 'ord', name: 'Chicago', latitude: 1, longitude: 1, geo_region: 'north_america' },
        ],
        Nearest: 'ord',
      },
    },
    'GET /v1/apps/demo': { json: testApp('demo') },
    'GET /v1/apps/demo/volumes': { json: [volume, { ...volume, state: 'pending_destroy' }] },
    'POST /v1/apps/demo/volumes': { json: volume },
    'GET /api/v1/apps/demo/releases': {
      json: { releases: [{ ...testRelease, created_at: '2020-01-01' }] },
    },
  })
  t.after(api.close)
  assert.match((await hangar(['regions', 'list'], { api })).out, /^Chicago {8}ord {3}nearest$/m)
  const list = (await hangar(['volumes', 'list', '-a', 'demo'], { api })).out
  assert.equal(list.match(/vol_1/g)?.length, 1)
  const made = await hangar(['volumes', 'create', 'data', '-a', 'demo', '--size', '2'], { api })
  assert.match(made.out, / {18}ID: vol_1\n/)
  assert.deepEqual(api.asked('POST /v1/apps/demo/volumes')[0]?.json, {
    name: 'data',
    region: 'ord',
    size_gb: 2,
  })
  const releases = (await hangar(['releases', '-a', 'demo', '--image'], { api })).out
  assert.match(releases, /^v4 {7}running {2}Release {6}me@example.com {2}Jan 1 2020 00:00 {2}127/m)
  assert.match((await hangar(['version'])).out, /^hangar v\d/)
})
