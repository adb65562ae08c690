import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#core/fault.ts'
import { parseFlyToml, type FlyConfig } from './fly-toml.ts'
import { machineConfigFor, processGroups, releaseCommandConfig } from './flatten.ts'
import { machineConfigSchema, type MachineConfig } from './machine-config.ts'

function read(text: string): FlyConfig {
  const result = parseFlyToml(text, { file: 'fly.toml' })
  assert.ok(result.ok, JSON.stringify(result))
  return result.config
}

const words = {
  image: 'r/i@sha256:1',
  releaseId: 'rel_1',
  releaseVersion: 7,
  hangarVersion: '1.2.3',
}
function flat(text: string, group = 'app', base?: MachineConfig): MachineConfig {
  const config = machineConfigFor(read(text), group, { ...words, base })
  assert.ok(machineConfigSchema.safeParse(config).success, 'not a config that the API takes')
  return config
}

test('MCH-85, TOML-30: an empty fly.toml is an image, its metadata and two variables', () => {
  assert.deepEqual(flat('primary_region = "ord"\n[env]\nPRIMARY_REGION = "x"\nA = 1\n'), {
    image: 'r/i@sha256:1',
    env: { A: '1', FLY_PROCESS_GROUP: 'app', PRIMARY_REGION: 'ord' },
    init: {},
    metadata: {
      fly_flyctl_version: '1.2.3',
      fly_platform_version: 'v2',
      fly_process_group: 'app',
      fly_release_id: 'rel_1',
      fly_release_version: '7',
    },
  })
})

test('TOML-40: http_service is one service on 80 and 443; autostop keeps the older wire spelling', () => {
  const text = `[http_service]
internal_port = 3000
force_https = true
auto_stop_machines = "stop"
auto_start_machines = true
min_machines_running = 0
[http_service.concurrency]
type = "requests"
soft_limit = 20
[[http_service.checks]]
interval = "60s"
method = "get"
path = "/up"
[http_service.checks.headers]
X-Forwarded-Proto = "https"
[http_service.tls_options]
alpn = ["h2"]
[http_service.http_options]
compress = true
`
  assert.deepEqual(flat(text).services, [
    {
      protocol: 'tcp',
      internal_port: 3000,
      autostop: true,
      autostart: true,
      min_machines_running: 0,
      ports: [
        { port: 80, handlers: ['http'], force_https: true, http_options: { compress: true } },
        {
          port: 443,
          handlers: ['http', 'tls'],
          tls_options: { alpn: ['h2'] },
          http_options: { compress: true },
        },
      ],
      checks: [
        {
          type: 'http',
          interval: '1m0s',
          method: 'get',
          path: '/up',
          headers: [{ name: 'X-Forwarded-Proto', values: ['https'] }],
        },
      ],
      concurrency: { type: 'requests', soft_limit: 20 },
    },
  ])
  const stops = [
    ['false', false],
    ['"off"', false],
    ['true', true],
    ['"suspend"', 'suspend'],
  ] as const
  for (const [written, sent] of stops) {
    const services = flat(`[http_service]\nauto_stop_machines = ${written}`).services
    assert.equal(services?.[0]?.autostop, sent)
  }
  assert.ok(!('autostop' in (flat('[http_service]').services?.[0] ?? {})))
})

test('TOML-51: services keep their ports as written', () => {
  const text = `[[services]]
internal_port = 5432
[[services.ports]]
start_port = 100
end_port = 200
handlers = ["pg_tls"]
force_https = false
[[services.tcp_checks]]
grace_period = "1s"
`
  assert.deepEqual(flat(text).services, [
    {
      protocol: 'tcp',
      internal_port: 5432,
      ports: [{ start_port: 100, end_port: 200, handlers: ['pg_tls'] }],
      checks: [{ type: 'tcp', grace_period: '1s' }],
    },
  ])
})

const groups = `primary_region = "ord"
[processes]
web = "serve --now"
app = ""
zed = "sleep 'a b'"
[http_service]
processes = ["web"]
[checks.web]
type = "http"
method = "head"
processes = ["web"]
[checks.mine]
type = "tcp"
port = 9
[[mounts]]
source = "data"
destination = "/data"
[[files]]
guest_path = "/motd"
raw_value = "hi"
processes = ["zed"]
[[restart]]
policy = "never"
processes = ["web", "zed"]
[[vm]]
size = "shared-cpu-2x"
processes = ["web"]
[[vm]]
memory = 512
`

test('TOML-60, TOML-61: sections go to the groups that they name, or to the default group', () => {
  assert.deepEqual(processGroups(read(groups)), ['app', 'web', 'zed'])
  const [app, web, zed] = ['app', 'web', 'zed'].map((group) => flat(groups, group))
  assert.ok(app && web && zed)
  assert.deepEqual(
    [app.init, web.init, zed.init],
    [{}, { cmd: ['serve', '--now'] }, { cmd: ['sleep', 'a b'] }],
  )
  assert.deepEqual(
    [app.services?.length, web.services?.length, zed.services?.length],
    [undefined, 1, undefined],
  )
  assert.deepEqual(app.mounts, [{ path: '/data', name: 'data' }])
  assert.ok(!web.mounts && !zed.mounts)
  assert.deepEqual(app.checks, { mine: { type: 'tcp', port: 9 } })
  assert.deepEqual(web.checks, { web: { type: 'http', method: 'HEAD', port: 8080 } })
  assert.deepEqual(zed.files, [{ guest_path: '/motd', raw_value: 'aGk=' }])
  assert.deepEqual([app.restart, web.restart], [undefined, { policy: 'no' }])
  assert.deepEqual(web.guest, { cpus: 2, cpu_kind: 'shared', memory_mb: 512 })
  assert.deepEqual(zed.guest, { cpus: 1, cpu_kind: 'shared', memory_mb: 512 })
  assert.equal(web.env?.['FLY_PROCESS_GROUP'], 'web')
})

test('TOML-61: without a group called app, the first in byte order is the default', () => {
  const text = '[processes]\nworker = ""\nWeb = ""\n[[mounts]]\nsource = "d"\ndestination = "/d"\n'
  assert.ok(flat(text, 'Web').mounts)
  assert.ok(!flat(text, 'worker').mounts)
})

test('TOML-65: without [[vm]] the guest that is there stays; with it, it is replaced', () => {
  const base: MachineConfig = {
    image: 'old',
    guest: { cpus: 4, cpu_kind: 'shared', memory_mb: 1024 },
    schedule: 'daily',
    env: { OLD: '1' },
    init: { cmd: ['old'], tty: true },
    metadata: { mine: 'kept', fly_process_group: 'app' },
    services: [{ protocol: 'tcp', internal_port: 1 }],
    dns: { skip_registration: true },
  }
  const kept = flat('', 'app', base)
  assert.deepEqual(kept.guest, base.guest)
  assert.equal(kept.schedule, 'daily')
  assert.deepEqual(kept.dns, base.dns)
  assert.deepEqual(kept.init, { tty: true })
  assert.deepEqual(kept.env, { FLY_PROCESS_GROUP: 'app' })
  assert.equal(kept.metadata?.['mine'], 'kept')
  assert.ok(!('services' in kept))
  assert.equal(flat('[vm]\nsize = "performance-1x"', 'app', base).guest?.memory_mb, 2048)
  assert.equal(flat('[[vm]]\npersist_rootfs = "restart"').guest?.persist_rootfs, 'restart')
})

test('TOML-70, TOML-75: restart, stop and experimental commands', () => {
  const config = flat(`kill_signal = "SIGTERM"
kill_timeout = 120
[experimental]
cmd = "start"
entrypoint = ["/bin/sh", "-c"]
[[restart]]
policy = "on-failure"
retries = 3
`)
  assert.deepEqual(config.stop_config, { timeout: '2m0s', signal: 'SIGTERM' })
  assert.deepEqual(config.init, { cmd: ['start'], entrypoint: ['/bin/sh', '-c'] })
  assert.deepEqual(config.restart, { policy: 'on-failure', max_retries: 3 })
})

test('DEP-11: the release command has no services, no mounts and its own group', () => {
  const text = `primary_region = "ord"
[env]
A = "b"
[deploy]
release_command = "bin/migrate 'up now'"
[deploy.release_command_vm]
memory = "1gb"
[http_service]
[[mounts]]
source = "d"
destination = "/d"
`
  const config = releaseCommandConfig(read(text), words)
  assert.ok(config && machineConfigSchema.safeParse(config).success)
  assert.deepEqual(config.init, { cmd: ['bin/migrate', 'up now'] })
  assert.deepEqual(config.env, {
    A: 'b',
    FLY_PROCESS_GROUP: 'fly_app_release_command',
    PRIMARY_REGION: 'ord',
    RELEASE_COMMAND: '1',
  })
  assert.deepEqual(config.restart, { policy: 'no' })
  assert.equal(config.guest?.memory_mb, 1024)
  assert.ok(config.auto_destroy && !config.services && !config.mounts)
  assert.equal(releaseCommandConfig(read('app = "a"'), words), undefined)
})

test('TOML-36: a local file whose content was not sent is an error, not an empty file', () => {
  const text = '[[files]]\nguest_path = "/x"\nlocal_path = "x.txt"'
  assert.throws(
    () => flat(text),
    (error) => isFault(error, 'invalid'),
  )
})
