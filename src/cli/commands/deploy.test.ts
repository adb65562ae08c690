import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { run } from '#sys/process.ts'
import {
  hangar,
  startApi,
  temporaryFolder,
  testApp,
  testRelease,
  type Answer,
} from '../test-support.ts'

const progress = (status: string): Answer => ({
  lines: [
    { seq: 0, at: '', level: 'info', message: "Updating existing machines in 'demo'" },
    { seq: 1, at: '', level: 'warn', message: 'slow' },
    { seq: 2, at: '', level: 'info', message: '✔ m1', status },
  ],
})

const routes = {
  'GET /v1/apps/demo': { json: testApp('demo') },
  'POST /api/v1/apps/demo/builds': { status: 201, json: { id: 'b1' } },
  'PUT /api/v1/apps/demo/builds/b1/context': {
    lines: [
      { level: 'log', message: '#1 FROM debian' },
      {
        status: 'complete',
        image: { ref: 'reg/demo:l@sha256:1', digest: 'sha256:1', size: 5_000_000 },
      },
    ],
  },
  'POST /api/v1/apps/demo/deploys': { status: 201, json: testRelease },
  'GET /api/v1/apps/demo/releases/rel_1/progress': progress('complete'),
}

const tomlText = `app = 'demo'

[build.args]
  A = 'file'
  B = 'file'

[env]
  MODE = 'x'

[http_service]
  internal_port = 8080

[[files]]
  guest_path = '/etc/greeting'
  local_path = 'greeting.txt'
`

function project(t: { after(done: () => void): void }, toml = tomlText): string {
  const folder = temporaryFolder(t)
  writeFileSync(join(folder, 'fly.toml'), toml)
  writeFileSync(join(folder, 'Dockerfile'), 'FROM debian\nEXPOSE 3000\n')
  writeFileSync(join(folder, '.dockerignore'), 'ignored')
  writeFileSync(join(folder, 'ignored'), 'no')
  writeFileSync(join(folder, 'greeting.txt'), 'hello')
  return folder
}

test('deploy builds the folder, hands over the definition with its files, follows, shows the URL', async (t) => {
  const api = await startApi(routes)
  t.after(api.close)
  const cwd = project(t)
  const line =
    'deploy --build-arg B=flag --build-secret S=1 --build-target prod --no-cache --image-label v1 --ha=false --strategy immediate -e X=1 --wait-timeout 90s --release-command-timeout 2m --vm-memory 512 --remote-only'
  const { code, out, err } = await hangar(line.split(' '), { api, cwd })
  assert.equal(code, 0, err)
  assert.deepEqual(api.asked('POST /api/v1/apps/demo/builds')[0]?.json, {
    dockerfile: 'Dockerfile',
    target: 'prod',
    args: { A: 'file', B: 'flag' },
    secrets: { S: '1' },
    label: 'v1',
    no_cache: true,
  })
  const tar = api.asked('PUT /api/v1/apps/demo/builds/b1/context')[0]?.body
  const names = (await run('tar', ['tf', '-'], { input: tar ?? '' })).stdout.trim().split('\n')
  assert.deepEqual(names, ['.dockerignore', 'Dockerfile', 'fly.toml', 'greeting.txt'])
  assert.deepEqual(api.asked('POST /api/v1/apps/demo/deploys')[0]?.json, {
    strategy: 'immediate',
    ha: false,
    wait_timeout_ms: 90_000,
    release_command_timeout_ms: 120_000,
    env: { X: '1' },
    guest: { cpus: 1, cpu_kind: 'shared', memory_mb: 512 },
    definition: {
      app: 'demo',
      build: { args: { A: 'file', B: 'file' } },
      env: { MODE: 'x' },
      http_service: { internal_port: 8080 },
      files: [
        {
          guest_path: '/etc/greeting',
          local_path: 'greeting.txt',
          raw_base64: Buffer.from('hello').toString('base64'),
        },
      ],
    },
    image: 'reg/demo:l@sha256:1',
  })
  assert.match(out, /#1 FROM debian\n/)
  assert.match(out, /image size: 5.0 MB/)
  assert.match(out, /Visit your newly deployed app at http:\/\/demo.hangar.localhost:8080\n$/)
  assert.match(err, /WARN slow/)
})

test('deploy shows the https URL where plain HTTP only redirects', async (t) => {
  const urls = ['http://demo.hangar.localhost:8080', 'https://demo.hangar.localhost:8443']
  const api = await startApi({
    ...routes,
    'GET /v1/apps/demo': { json: { ...testApp('demo'), urls } },
  })
  t.after(api.close)
  const shown = async (toml: string) => {
    const { out, err } = await hangar(['deploy'], { api, cwd: project(t, toml) })
    return /app at (\S+)$/m.exec(out)?.[1] ?? err
  }
  const section = "app = 'demo'\n[http_service]\n  internal_port = 8080\n"
  assert.equal(await shown(section), urls[0])
  assert.equal(await shown(`${section}  force_https = true\n`), urls[1])
  const services =
    "app = 'demo'\n[[services]]\n  internal_port = 8080\n  [[services.ports]]\n    port = 80\n    handlers = ['http']\n    force_https = true\n"
  assert.equal(await shown(services), urls[1])
})

test('a strategy that cannot be deployed yet is refused before the build; the flag goes first', async (t) => {
  const api = await startApi(routes)
  t.after(api.close)
  const cwd = project(t, "app = 'demo'\n[deploy]\n  strategy = 'bluegreen'\n")
  const refused = await hangar(['deploy'], { api, cwd })
  assert.equal(refused.code, 1)
  assert.match(refused.err, /deploy\.strategy "bluegreen" is not available yet; write "rolling"/)
  assert.equal(api.asked('POST /api/v1/apps/demo/builds').length, 0)
  const named = await hangar(['deploy', '--strategy', 'rolling'], { api, cwd })
  assert.equal(named.code, 0, named.err)
})

test('a wrong fly.toml names file, line and key, and nothing is asked of the server', async (t) => {
  const api = await startApi(routes)
  t.after(api.close)
  const cwd = project(t, "app = 'demo'\n\n[http_service]\n  internal_port = 'eighty'\n")
  const { code, err } = await hangar(['deploy'], { api, cwd })
  assert.equal(code, 1)
  assert.match(err, /fly\.toml:4: http_service\.internal_port /)
  assert.equal(api.seen.length, 0)
})

test('wrong flags, a missing app, a missing Dockerfile and a missing local file say what to do', async (t) => {
  const api = await startApi({
    ...routes,
    'GET /v1/apps/demo': { status: 404, json: { error: 'no' } },
  })
  t.after(api.close)
  const cwd = project(t)
  const failing = async (argv: string[], folder = cwd) =>
    (await hangar(argv, { api, cwd: folder })).err
  assert.match(await failing(['deploy', '--strategy', 'canary']), /canary is not available yet/)
  assert.match(await failing(['deploy', '--wait-timeout', 'soon']), /is no duration/)
  assert.match(await failing(['deploy', '--vm-memory', '300']), /memory in steps of 256 MB/)
  assert.match(await failing(['deploy', '--dockerfile', 'nope']), /nope that --dockerfile names/)
  assert.equal(api.seen.length, 0)
  assert.match(await failing(['deploy']), /Could not find App "demo".*hangar launch/)
  const empty = temporaryFolder(t)
  writeFileSync(join(empty, 'fly.toml'), "app = 'demo'\n")
  assert.match(await failing(['deploy'], empty), /there is no Dockerfile in .*--image/)
  assert.match(await failing(['deploy', 'nowhere'], empty), /nowhere is no folder/)
  writeFileSync(join(empty, 'fly.toml'), tomlText)
  assert.match(await failing(['deploy', '--image', 'x'], empty), /"greeting.txt" cannot be read/)
})

test('--image deploys without a build; a release that fails ends with 1 and where to look', async (t) => {
  const api = await startApi({
    ...routes,
    'POST /api/v1/images/inspect': {
      json: { ref: 'docker.io/library/nginx:1@sha256:2', size: 10, exposed_ports: [80] },
    },
    'GET /api/v1/apps/demo/releases/rel_1/progress': progress('failed'),
  })
  t.after(api.close)
  const { code, err } = await hangar(['deploy', '--image', 'nginx:1'], { api, cwd: project(t) })
  assert.equal(code, 1)
  assert.match(err, /Error: release v4 of demo failed; see: hangar status -a demo/)
  const sent = api.asked('POST /api/v1/apps/demo/deploys')[0]?.json as { image: string }
  assert.equal(sent.image, 'docker.io/library/nginx:1@sha256:2')
  assert.equal(api.asked('POST /api/v1/apps/demo/builds').length, 0)
})

test('a build that fails or breaks off is an error with its reason, and nothing is deployed', async (t) => {
  let answer: Answer = {
    lines: [
      { level: 'error', message: 'E: no such package' },
      { status: 'failed', error: 'RUN apt-get exited with 100' },
    ],
  }
  const api = await startApi({ ...routes, 'PUT /api/v1/apps/demo/builds/b1/context': () => answer })
  t.after(api.close)
  const cwd = project(t)
  const failed = await hangar(['deploy'], { api, cwd })
  assert.equal(failed.code, 1)
  assert.match(
    failed.err,
    /E: no such package\nError: failed to build the image: RUN apt-get exited/,
  )
  answer = { lines: [{ level: 'log', message: 'half' }] }
  assert.match((await hangar(['deploy'], { api, cwd })).err, /broke before the build was over/)
  assert.equal(api.asked('POST /api/v1/apps/demo/deploys').length, 0)
})

test('progress that breaks off goes on at the next line, each shown once', async (t) => {
  let asked = 0
  const lines = (progress('complete').lines ?? []) as { message: string }[]
  const api = await startApi({
    ...routes,
    'GET /api/v1/apps/demo/releases/rel_1/progress': () =>
      asked++ === 0 ? { lines: lines.slice(0, 1), cut: true } : { lines },
  })
  t.after(api.close)
  const { code, out } = await hangar(['deploy'], { api, cwd: project(t) })
  assert.equal(code, 0)
  assert.equal(asked, 2)
  assert.equal(out.split(lines[0]?.message ?? '?').length - 1, 1)
})

const launchRoutes = {
  'GET /api/v1/viewer': {
    json: { email: 'me', organizations: [{ slug: 'personal', name: 'Personal' }] },
  },
  'GET /v1/platform/regions': {
    json: {
      Regions: [
        { code: 'ams', name: 'Amsterdam', latitude: 1, longitude: 1, geo_region: 'europe' },
        { code: 'ord', name: 'Chicago', latitude: 1, longitude: 1, geo_region: 'north_america' },
      ],
      Nearest: 'ord',
    },
  },
}

/** Routes for an app that exists once it was created. */
function launchable(name: string) {
  let made = false
  return {
    ...launchRoutes,
    'POST /v1/apps': () => {
      made = true
      return { status: 201, json: testApp(name) }
    },
    [`GET /v1/apps/${name}`]: () =>
      made ? { json: testApp(name) } : { status: 404, json: { error: 'App not found' } },
  }
}

test('launch proposes a name and a port, writes flyctl’s fly.toml, creates the app', async (t) => {
  const api = await startApi(launchable('my-app-2'))
  t.after(api.close)
  const cwd = join(temporaryFolder(t), 'My App_2!')
  mkdirSync(cwd)
  writeFileSync(join(cwd, 'Dockerfile'), 'FROM a\nEXPOSE 3000\n')
  const unsure = await hangar(['launch'], { api, cwd })
  assert.equal(unsure.code, 1)
  assert.match(unsure.err, /give --yes to launch it/)
  const { code, out, err } = await hangar(['launch', '--yes', '--no-deploy'], { api, cwd })
  assert.equal(code, 0, err)
  assert.match(out, /^Organization: {2}Personal .*\(launch defaults to the personal org\)$/m)
  assert.match(out, /^Name: {10}my-app-2 .*\(derived from your directory name\)$/m)
  assert.match(out, /^Region: {8}Chicago .*\(this is the fastest region for you\)$/m)
  assert.match(out, /^App Machines: {2}shared-cpu-1x, 1GB memory \(most apps need about 1GB/m)
  assert.match(out, /Created app 'my-app-2' in organization 'personal'/)
  const [header, ...text] = readFileSync(join(cwd, 'fly.toml'), 'utf8').split('\n')
  assert.match(header ?? '', /^# fly.toml app configuration file generated for my-app-2 on/)
  assert.deepEqual(text.slice(text.indexOf('') + 1).join('\n'), expectedToml)
})

const expectedToml = `app = 'my-app-2'
primary_region = 'ord'

[build]

[http_service]
  internal_port = 3000
  force_https = true
  auto_stop_machines = 'stop'
  auto_start_machines = true
  min_machines_running = 0
  processes = ['app']

[[vm]]
  memory = '1gb'
  cpu_kind = 'shared'
  cpus = 1
`

test('launch of an image takes the port it exposes, and what the flags say', async (t) => {
  const api = await startApi({
    ...launchable('web'),
    'POST /api/v1/images/inspect': {
      json: { ref: 'nginx@sha256:1', size: 1, exposed_ports: [80] },
    },
  })
  t.after(api.close)
  const cwd = temporaryFolder(t)
  const line = 'launch --image nginx --name web --region ams --vm-memory 512 --yes --no-deploy'
  const { code, err } = await hangar(line.split(' '), { api, cwd })
  assert.equal(code, 0, err)
  const text = readFileSync(join(cwd, 'fly.toml'), 'utf8')
  assert.match(text, /\[build\]\n {2}image = 'nginx'/)
  assert.match(text, /primary_region = 'ams'/)
  assert.match(text, /internal_port = 80\n/)
  assert.match(text, /memory = '512mb'/)
})

test('a name that is taken: of ours, of others, and a proposed one', async (t) => {
  const api = await startApi({
    ...launchRoutes,
    'GET /v1/apps/ours': { json: testApp('ours') },
    'GET /v1/apps/theirs': { status: 403, json: { error: 'forbidden', status: 'forbidden' } },
    'POST /v1/apps': { status: 422, json: { error: 'stop here', status: 'name_taken' } },
  })
  t.after(api.close)
  const cwd = join(temporaryFolder(t), 'ours')
  mkdirSync(cwd)
  writeFileSync(join(cwd, 'Dockerfile'), 'FROM a\n')
  const launch = (...more: string[]) => hangar(['launch', '--yes', ...more], { api, cwd })
  assert.match((await launch('--name', 'ours')).err, /exists already; deploy to it with/)
  assert.match((await launch('--name', 'theirs')).err, /the name theirs is taken/)
  assert.match((await launch('--name', 'Not_OK')).err, /an app name must be lowercase/)
  assert.match((await launch('--region', 'xyz')).err, /no region "xyz"; it has: ams, ord/)
  const proposed = await launch()
  assert.match(proposed.out, /^Name: {10}ours-\w+-\w+-\d{4} /m)
  assert.match(proposed.err, /stop here/)
})

test('launch copies a configuration and leaves it as it is written where nothing changes', async (t) => {
  const api = await startApi(launchable('demo'))
  t.after(api.close)
  const written = `# my own words\napp = 'demo'\nprimary_region = 'ord'\n${tomlText.replace("app = 'demo'\n", '')}`
  const cwd = project(t, written)
  const line = ['launch', '--copy-config', '--yes', '--no-deploy']
  const { code, err } = await hangar(line, { api, cwd })
  assert.equal(code, 0, err)
  assert.equal(readFileSync(join(cwd, 'fly.toml'), 'utf8'), written)
  const folder = project(
    t,
    tomlText.replace("app = 'demo'", "app = 'demo'\nprimary_region = 'nrt'"),
  )
  const other = await startApi(launchable('demo'))
  t.after(other.close)
  const moved = await hangar(line, { api: other, cwd: folder })
  assert.match(moved.err, /this cloud has no region "nrt", which fly.toml names; using ord/)
  const text = readFileSync(join(folder, 'fly.toml'), 'utf8')
  assert.match(text, /primary_region = 'ord'/)
  assert.match(text, /local_path = 'greeting.txt'/)
})

test('launch without anything to launch says what to add', async (t) => {
  const api = await startApi(launchRoutes)
  t.after(api.close)
  const { err } = await hangar(['launch', '--yes'], { api, cwd: temporaryFolder(t) })
  assert.match(err, /there is no Dockerfile in .*--dockerfile.*--image/)
})

test('config validate, show and save', async (t) => {
  const api = await startApi({
    'GET /v1/apps/demo': { json: testApp('demo') },
    'GET /api/v1/apps/demo/definition': { json: { app: 'demo', env: { A: '1' } } },
  })
  t.after(api.close)
  const cwd = project(t, `${tomlText}\n[nonsense]\n  a = 1\n`)
  assert.equal((await hangar(['config', 'validate'], { cwd })).code, 0)
  const strict = await hangar(['config', 'validate', '--strict'], { cwd })
  assert.equal(strict.code, 1)
  assert.match(strict.out, /nonsense/)
  const shown = await hangar(['config', 'show'], { api, cwd })
  assert.deepEqual(JSON.parse(shown.out), { app: 'demo', env: { A: '1' } })
  assert.match((await hangar(['config', 'save'], { api, cwd })).err, /give --yes/)
  assert.equal((await hangar(['config', 'save', '--yes'], { api, cwd })).code, 0)
  assert.match(readFileSync(join(cwd, 'fly.toml'), 'utf8'), /\[env\]\n {2}A = '1'/)
})
