import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as fc from 'fast-check'
import {
  inlineFiles,
  locateKey,
  parseDefinition,
  parseFlyToml,
  withoutFileContents,
  writeFlyToml,
  type FlyTomlResult,
} from './fly-toml.ts'
import { shellSplit } from './shell-split.ts'

const parse = (text: string) => parseFlyToml(text, { file: 'fly.toml' })

function good(text: string): Extract<FlyTomlResult, { ok: true }> {
  const result = parse(text)
  assert.ok(result.ok, JSON.stringify(result))
  return result
}

function messages(text: string): string[] {
  const result = parse(text)
  assert.ok(!result.ok, 'the document is taken, and should not be')
  return result.errors.map((error) => error.message)
}

const whole = `app = "hello"
primary_region = "ord"
kill_signal = "SIGTERM"
kill_timeout = 30

[build]
  dockerfile = "Dockerfile"
  build-target = "run"
  [build.args]
    VERSION = 3

[env]
  PORT = 8080
  FLAG = true

[processes]
  web = "serve --port 8080"
  worker = "work 'a b'"

[deploy]
  release_command = "migrate up"
  max_unavailable = 0.5
  wait_timeout = "2m"

[http_service]
  internal_port = 8080
  force_https = true
  auto_stop_machines = "suspend"
  auto_start_machines = true
  min_machines_running = 1
  processes = ["web"]
  [http_service.concurrency]
    type = "requests"
    soft_limit = 200
    hard_limit = 250
  [[http_service.checks]]
    interval = 10000
    timeout = "2s"
    path = "/up"

[checks.alive]
  type = "tcp"
  port = 9000
  processes = ["worker"]

[[mounts]]
  source = "data"
  destination = "/data"
  initial_size = "10gb"
  processes = ["worker"]

[[files]]
  guest_path = "/etc/motd"
  raw_value = "hi"

[[restart]]
  policy = "on-failure"
  retries = 5
  processes = ["worker"]

[[vm]]
  size = "shared-cpu-1x"
  memory = "1gb"
`

test('TOML-2…71: the sections that work parse without a warning', () => {
  const { config, warnings, unknownKeys } = good(whole)
  assert.deepEqual(warnings, [])
  assert.deepEqual(unknownKeys, [])
  assert.equal(config.kill_timeout, '30s')
  assert.deepEqual(config.env, { PORT: '8080', FLAG: 'true' })
  assert.equal(config.build?.args?.['VERSION'], '3')
  assert.equal(config.http_service?.checks?.[0]?.interval, '10s')
  assert.equal(config.vm?.[0]?.memory, 1024)
  assert.equal(config.mounts?.[0]?.initial_size, 10)
})

test('TOML-3: the definition is the document as it was written', () => {
  const { definition } = good('app = "a"\nkill_timeout = 5\nmine = [1]\n[vm]\nmemory = "1gb"\n')
  assert.deepEqual(definition, { app: 'a', kill_timeout: 5, mine: [1], vm: { memory: '1gb' } })
  assert.ok(parseDefinition(definition).ok)
})

test('TOML-4: unknown keys pass and are named with their line', () => {
  const { unknownKeys } = good('app = "a"\nnothing = 1\n[http_service]\nport = 3\n')
  assert.deepEqual(unknownKeys, [
    { key: 'nothing', line: 2 },
    { key: 'http_service.port', line: 4 },
  ])
})

test('TOML-7: older spellings mean the present ones', () => {
  const cases: [string, string][] = [
    ['[[env]]\nA = 1\n[[env]]\nB = "x"', '[env]\nA = "1"\nB = "x"'],
    ['[[processes]]\nname = "web"\ncommand = "./web"', '[processes]\nweb = "./web"'],
    ['[[processes]]', ''],
    ['[build]\nbuild_target = "x"', '[build]\nbuild-target = "x"'],
    ['[compute]\nmemory = 512', '[[vm]]\nmemory = "512mb"'],
    ['[[computes]]\nsize = "shared-cpu-2x"', '[[vm]]\nsize = "shared-cpu-2x"'],
    [
      '[mount]\nsource = "data"\ndestination = "/d"',
      '[[mounts]]\nsource = "data"\ndestination = "/d"',
    ],
    ['[metric]\nport = 9\npath = "/m"', '[[metrics]]\nport = 9\npath = "/m"'],
    [
      '[[checks]]\nname = "a"\ntype = "tcp"\nport = 1\nheaders = []',
      '[checks.a]\ntype = "tcp"\nport = 1',
    ],
    [
      '[[services]]\ninternal_port = "8080"\nconcurrency = "12,23"\n[[services.ports]]\nport = "80"\nhandlers = ["http"]',
      '[[services]]\nprotocol = "tcp"\ninternal_port = 8080\n[services.concurrency]\ntype = "requests"\nsoft_limit = 12\nhard_limit = 23\n[[services.ports]]\nport = 80\nhandlers = ["http"]',
    ],
    [
      '[http_service]\n[[http_service.checks]]\ngrace_period = ""\n[[http_service.checks.headers]]\nname = "a"\nvalue = "b"',
      '[http_service]\n[[http_service.checks]]\n[http_service.checks.headers]\na = "b"',
    ],
    ['[restart]\npolicy = "always"', '[[restart]]\npolicy = "always"'],
    ['[http_service]\nauto_stop_machines = true', '[http_service]\nauto_stop_machines = "stop"'],
  ]
  for (const [old, present] of cases) {
    assert.deepEqual(good(old).config, good(present).config, old)
  }
  assert.equal(good('[experimental]\nkill_timeout = 7').config.kill_timeout, '7s')
})

test('TOML-8: a complaint names the file, the line and the key, and says what is wanted', () => {
  const cases: [string, string][] = [
    [
      'app = "a"\n\n[http_service]\n  internal_port = "abc"\n',
      'fly.toml:4: http_service.internal_port must be a whole number from 1 to 65535, not "abc"',
    ],
    [
      'app = "Bad_Name"',
      'fly.toml:1: app must be lowercase letters, digits and dashes, at most 63, and start and end with a letter or digit',
    ],
    [
      'primary_region = "eu"',
      'fly.toml:1: primary_region must be one region code of three lowercase letters such as "ord", not "eu"',
    ],
    ['kill_timeout = "10m"', 'fly.toml:1: kill_timeout must be at most 5m0s, not "10m"'],
    [
      'kill_signal = "TERM"',
      'fly.toml:1: kill_signal must be one of "SIGHUP", "SIGINT", "SIGQUIT", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGTERM", "SIGSTOP", not "TERM"',
    ],
    [
      '[env]\nFLY_X = "1"',
      'fly.toml:2: env.FLY_X is a name that the platform keeps for itself; choose one that does not start with FLY_',
    ],
    [
      '[processes]\nweb = "say \\"hi"',
      'fly.toml:2: processes.web has a quote that is never closed: "say \\"hi"',
    ],
    [
      '[deploy]\nstrategy = "canary"\n[[mounts]]\nsource = "d"\ndestination = "/d"',
      'fly.toml:2: deploy.strategy cannot be "canary" in an app with [[mounts]]; use "rolling"',
    ],
    [
      '[processes]\nweb = ""\n[http_service]\ninternal_port = 1',
      'fly.toml:3: http_service.processes is missing; the app has [processes], so name those that this service reaches: web',
    ],
    [
      '[processes]\nweb = ""\n[http_service]\nprocesses = ["wob"]',
      'fly.toml:4: http_service.processes names "wob", which is no process group of this app; its groups: web',
    ],
    [
      '[[services]]\ninternal_port = 1\n[[services.ports]]\nport = 80\nforce_https = true',
      'fly.toml:5: services.ports.force_https needs handlers = ["http"] on the same port',
    ],
    [
      '[[services]]\ninternal_port = 1\n[[services]]\ninternal_port = 70000',
      'fly.toml:4: services[1].internal_port must be a whole number from 1 to 65535, not 70000',
    ],
    [
      '[[services]]\nprotocol = "tcp"\n[[services.ports]]\nport = 80',
      'fly.toml:1: services.internal_port is missing',
    ],
    [
      '[checks.a]\ntype = "tcp"',
      'fly.toml:1: checks.a.port is missing, and its process group has no [http_service] to take it from',
    ],
    [
      '[checks.a]\nport = 1\ntype = "udp"',
      'fly.toml:3: checks.a.type must be one of "tcp", "http", not "udp"',
    ],
    [
      '[checks.a]\nport = 1\ntype = "tcp"\ninterval = "1s"',
      'fly.toml:4: checks.a.interval must be at least 2s, not "1s"',
    ],
    [
      '[[vm]]\nmemory = "100gb"',
      'fly.toml:2: vm.memory asks for what no machine has: a machine with 1 shared CPUs takes 256 to 2048 MB of memory in steps of 256 MB, not 102400 MB',
    ],
    [
      '[vm]\nmemory = "lots"',
      'fly.toml:2: vm.memory must be a size such as "512mb" or "1gb", not "lots"',
    ],
    ['[compute]\ncpus = "x"', 'fly.toml:2: vm.cpus must be a whole number from 0, not "x"'],
    [
      '[[mounts]]\nsource = "d"\ndestination = "data"',
      'fly.toml:3: mounts.destination must be an absolute path below /, such as "/data", not "data"',
    ],
    [
      '[[mounts]]\nsource = "d"\ndestination = "/d"\n[[mounts]]\nsource = "e"\ndestination = "/e"',
      'fly.toml:5: mounts[1].source is a second volume for process group "app"; a machine mounts at most one',
    ],
    [
      '[[files]]\nguest_path = "/a"\nraw_value = "x"\nsecret_name = "Y"',
      'fly.toml:1: files must have exactly one of raw_value, local_path and secret_name, and has 2',
    ],
    [
      '[[restart]]\npolicy = "no"',
      'fly.toml:2: restart.policy must be one of "always", "on-failure", "never", not "no"',
    ],
    ['http_service = 3', 'fly.toml:1: http_service must be a section, not 3'],
    ['vm = [1]', 'fly.toml:1: vm must be a section, not 1'],
  ]
  for (const [text, message] of cases) assert.deepEqual(messages(text), [message], text)
})

test('TOML-8: broken TOML and JSON name the line and the column', () => {
  const [first] = messages('app = "a"\nport = \n')
  assert.match(first ?? '', /^fly\.toml:2:\d+: this is not TOML: /)
  const json = parseFlyToml('{\n  "app": "a",\n}', { file: 'fly.json' })
  assert.ok(!json.ok)
  assert.match(json.errors[0]?.message ?? '', /^fly\.json:3:\d+: this is not JSON: /)
})

test('every complaint of a document is told at once', () => {
  assert.equal(messages('app = 1\n[http_service]\ninternal_port = 0\nforce_https = 1\n').length, 3)
})

test('keys whose behaviour comes later give one plain warning each', () => {
  const text = `swap_size_mb = 512
[deploy]
strategy = "bluegreen"
[http_service]
internal_port = 80
[[http_service.checks]]
interval = "100ms"
[[services]]
protocol = "udp"
internal_port = 53
[[services.ports]]
port = 53
[[services]]
internal_port = 5432
[[services.ports]]
port = 5432
[[statics]]
guest_path = "/a"
url_prefix = "/a"
[[statics]]
guest_path = "/b"
url_prefix = "/b"
[[metrics]]
port = 9
[[vm]]
size = "a10"
`
  assert.deepEqual(good(text).warnings, [
    'swap_size_mb is accepted but has no effect yet',
    '[[statics]] is accepted but has no effect yet',
    '[[metrics]] is accepted but has no effect yet',
    'gpus is accepted but has no effect yet',
    'deploy.strategy "bluegreen" is accepted but cannot be deployed yet; use "rolling"',
    'services[0]: protocol "udp" is accepted but has no effect yet',
    'services[1]: a port other than HTTP on 80 and 443 is accepted but has no effect yet',
    'http_service.checks: interval is below 1s and counts as 1s',
  ])
})

test('the line of a key is found in every way to write it', () => {
  const text = `# a comment with [brackets] = "x"
app = "a" # app = "b"
text = """
env = 1
[env]
"""
list = [
  "one", # two
  { deep = 1 }, 'three'
]
inline = { a = { b = 2 }, c = [3] }
[env]
"quoted key" = 1
[deploy.release_command_vm]
size = 'x'
[[services]]
[[services.ports]]
port = 1
[[services]]
  [[services.ports]]
  port = 2
  [[services.ports]]
  http_options.compress = true
`
  const cases: [(string | number)[], number | undefined][] = [
    [['app'], 2],
    [['env'], 12],
    [['env', 'quoted key'], 13],
    [['list', 1, 'deep'], 9],
    [['inline', 'a', 'b'], 11],
    [['deploy', 'release_command_vm', 'size'], 15],
    [['deploy', 'strategy'], undefined],
    [['services', 0, 'ports', 0, 'port'], 18],
    [['services', 1, 'ports', 0, 'port'], 21],
    [['services', 1, 'ports', 1, 'http_options', 'compress'], 23],
    [['services', 1, 'internal_port'], 19],
    [['nowhere'], undefined],
  ]
  for (const [path, line] of cases) assert.equal(locateKey(text, path), line, path.join('.'))
})

test('TOML-35: the contents of local files travel with the definition and are not stored', () => {
  const { definition } = good('[[files]]\nguest_path = "/x"\nlocal_path = "x.txt"')
  const sent = inlineFiles(definition, (path) => Buffer.from(`of ${path}`).toString('base64'))
  assert.ok(parseDefinition(sent).ok)
  assert.notDeepEqual(sent, definition)
  assert.deepEqual(withoutFileContents(sent), definition)
})

test('DEP-41: a written fly.toml reads back as the same definition', () => {
  const { definition, config } = good(whole)
  const text = writeFlyToml(definition, { at: new Date(0) })
  assert.match(
    text,
    /^# fly\.toml app configuration file generated for hello on 1970-01-01T00:00:00Z\n#\n/,
  )
  assert.deepEqual(good(text).config, config)
  assert.equal(
    writeFlyToml(
      {
        vm: [{ memory: '1gb', cpus: 1 }],
        http_service: { internal_port: 80, processes: ['app'] },
        build: {},
        app: "it's",
      },
      { at: new Date(0) },
    ).split('#\n\n')[1],
    `app = "it's"

[build]

[http_service]
  internal_port = 80
  processes = ['app']

[[vm]]
  memory = '1gb'
  cpus = 1
`,
  )
})

test('TOML-60: commands are split like a shell does', () => {
  const cases: [string, string[] | undefined][] = [
    ['run  the thing', ['run', 'the', 'thing']],
    [`a 'b c' "d \\" e" f\\ g`, ['a', 'b c', 'd " e', 'f g']],
    [`a''b "" # a comment`, ['ab', '']],
    [`"open`, undefined],
    ['back\\', undefined],
    ['', []],
  ]
  for (const [line, words] of cases) assert.deepEqual(shellSplit(line), words, line)
})

/** Documents that are often right: known keys with values that may fit. */
const value: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom('10s', '1gb', 'shared', 'tcp', 'http', '/data', 'data', 'GET', 'app', ''),
  fc.integer({ min: -1, max: 70_000 }),
  fc.boolean(),
  fc.array(fc.constantFrom('http', 'tls', 'app', 'x'), { maxLength: 2 }),
)
const keys = fc.constantFrom(
  ...'app env PORT internal_port force_https processes size memory cpus source destination type port interval'.split(
    ' ',
  ),
)
const sections = fc.constantFrom(
  ...'env http_service build deploy vm mounts checks services processes files restart experimental'.split(
    ' ',
  ),
)
const table = fc.dictionary(keys, value, { maxKeys: 2 })
const documents = fc.dictionary(
  fc.oneof(sections, keys),
  fc.oneof(
    table,
    fc.array(table, { maxLength: 2 }),
    fc.dictionary(keys, table, { maxKeys: 2 }),
    value,
  ),
  { maxKeys: 2 },
)

test('random documents never crash the parser, and many of them are right', () => {
  const runs = 500
  let parsed = 0
  fc.assert(
    fc.property(documents, (document) => {
      const text = writeFlyToml(document, { at: new Date(0) })
      const result = parse(text)
      if (result.ok) {
        parsed++
        assert.deepEqual(
          (parseDefinition(result.definition) as { config: unknown }).config,
          result.config,
        )
      } else {
        for (const error of result.errors) assert.ok(error.message.startsWith('fly.toml:'))
      }
    }),
    { numRuns: runs },
  )
  assert.ok(parsed >= runs / 10, `${parsed} of ${runs} parse`)
})

test('keys that every object has are keys that nobody knows', () => {
  for (const key of ['__proto__', 'constructor', 'toString']) {
    parse(`app = "a"\n${key} = "b"\n[${key}.c]\nd = 1\n`)
    parse(`app = "a"\n[${key}]\nb = 1\n`)
  }
})

test('random text and random JSON never crash it either', () => {
  const pieces = fc.constantFrom(
    '[',
    ']',
    '[[',
    '"',
    "'",
    '"""',
    '=',
    '.',
    '{',
    '}',
    ',',
    '\n',
    '#',
    '\\',
    'a',
    'vm',
    ' ',
    '1',
  )
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.array(pieces).map((all) => all.join('')),
      ),
      (text) => {
        parse(text)
        locateKey(text, ['vm', 0, 'a'])
        parseFlyToml(text, { file: 'fly.json' })
      },
    ),
    { numRuns: 1000 },
  )
  fc.assert(fc.property(fc.jsonValue(), (json) => void parseDefinition(json)))
})
