import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { systemClock } from '#core/clock.ts'
import { accepts } from '#edge/proxy/prober.ts'
import { get, killed, makeWorld, serving, settled, spawnEdge } from '#edge/test-support.ts'
import { findDaemon } from '#sys/daemon.ts'
import { run } from '#sys/process.ts'
import { chooseFreePort } from '#sys/ports.ts'
import { eventually } from '#sys/test-support.ts'

/**
 * The edge beside the same HAProxy with a configuration written by hand for one app, and Debian's Caddy where it is
 * installed: small answers, keep-alive, on loopback. All take turns in each round, so that the noise of the machine falls
 * on all of them; what counts is the ratio of the medians.
 *
 *   node bench/edge.ts [--apps 2000] [--rounds 5] [--seconds 2]
 */
const option = (name: string, otherwise: number): number => {
  const at = process.argv.indexOf(`--${name}`)
  return at === -1 ? otherwise : Number(process.argv[at + 1])
}
const apps = option('apps', 2_000)
const rounds = option('rounds', 5)
const seconds = option('seconds', 2)
const connections = 64

const world = await makeWorld({ slots: apps + 8 })
const children: ChildProcess[] = []
const work = `${world.dir}/bench`
mkdirSync(work)
const median = (numbers: number[]) => numbers.sort((a, b) => a - b)[numbers.length >> 1] ?? 0

function native(name: string, text: string, args: (file: string) => string[]): number {
  const file = `${work}/${name}.conf`
  writeFileSync(file, text)
  // In a session of its own, as the edge's HAProxy is: the scheduler shares time between sessions.
  const child = spawn(name.split('-')[0]!, args(file), { stdio: 'ignore', detached: true })
  children.push(child)
  return child.pid ?? 0
}

/** Answers a few bytes as fast as anything here can. */
async function startBackend(address: string): Promise<void> {
  native(
    'haproxy-backend',
    `defaults
  mode http
  timeout client 60s
  timeout http-keep-alive 60s
frontend app
  bind ${address}
  http-request return status 200 content-type text/plain string "hello"
`,
    (file) => ['-db', '-f', file],
  )
  await eventually('the backend', () => accepts(address))
}

const platformHeaders = `  unique-id-format %[date(0,ms),bytes(2,6),hex]%[rand,bytes(4,4),hex]%[rand,bytes(5,3),hex]-ord
  http-request set-header fly-client-ip %[src]
  http-request set-header fly-forwarded-port %[dst_port]
  http-request set-header fly-region ord
  http-request set-header fly-request-id %[unique-id]
  http-request set-header x-forwarded-for "%[src], %[dst]"
  http-request set-header x-forwarded-proto http
  http-request set-header x-forwarded-port %[dst_port]
  http-request set-header x-forwarded-ssl off
  http-request add-header via "1.1 fly.io"
  http-response set-header server Fly
  http-response add-header via "1.1 fly.io"
  http-response set-header fly-request-id %[unique-id]
`

function startStatic(name: string, port: number, backend: string, headers: string): number {
  return native(
    `haproxy-${name}`,
    `defaults
  mode http
  timeout connect 2s
  timeout client 600s
  timeout server 600s
frontend web
  bind 127.0.0.1:${port}
${headers}  use_backend app if { hdr(host) -i bench.hangar.localhost }
backend app
  balance leastconn
  server m1 ${backend}
`,
    (file) => ['-db', '-f', file],
  )
}

function startCaddy(port: number, backend: string): number {
  return native(
    'caddy',
    `{
  auto_https off
  admin off
}
http://bench.hangar.localhost:${port} {
  reverse_proxy ${backend}
}
`,
    (file) => ['run', '--adapter', 'caddyfile', '--config', file],
  )
}

interface Contender {
  port: number
  pid: number
  rates: number[]
  cpuUs: number[]
}

/** Processor time of a process so far, in microseconds (100 ticks a second). */
function cpuUs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')
  return (Number(fields[11]) + Number(fields[12])) * 10_000
}

async function measure(contender: Contender): Promise<void> {
  const before = cpuUs(contender.pid)
  const result = await run('wrk', [
    '-t1',
    `-c${connections}`,
    `-d${seconds}s`,
    '-H',
    'Host: bench.hangar.localhost',
    `http://127.0.0.1:${contender.port}/`,
  ])
  if (/Non-2xx|Socket errors/.test(result.stdout)) throw new Error(result.stdout)
  contender.rates.push(Number(/Requests\/sec:\s+([\d.]+)/.exec(result.stdout)?.[1]))
  const requests = Number(/(\d+) requests in/.exec(result.stdout)?.[1])
  contender.cpuUs.push((cpuUs(contender.pid) - before) / requests)
}

/** From the host's word to the first answer of a machine that was not routed before. */
async function routeChangeMs(): Promise<number[]> {
  const samples: number[] = []
  for (let i = 0; i < 20; i++) {
    await world.host.put('m-bench-2', { ready: i % 2 === 0 })
    const start = systemClock.now()
    const { counter } = world.host.machines.get('m-bench-2')!.row
    while (!world.edges.applied('m-bench-2', counter)) {
      await new Promise((resolve) => setImmediate(resolve))
    }
    samples.push(systemClock.now() - start)
  }
  return samples
}

/** What the edge adds to a start: the paper host takes `startMs`, everything above is ours. */
async function coldRequestMs(): Promise<number[]> {
  world.host.startMs = 20
  await world.host.add('m-sleeper', { app: 'sleeper', state: 'stopped' })
  const samples: number[] = []
  for (let i = 0; i < 20; i++) {
    await settled(world)
    const start = performance.now()
    const got = await get(world.settings, { host: 'sleeper.hangar.localhost' })
    if (got.status !== 200) throw new Error(`a cold request got ${got.status}: ${got.text}`)
    samples.push(Math.round(performance.now() - start - world.host.startMs))
    await world.host.put('m-sleeper', { state: 'stopping', ready: false })
    await settled(world)
    await world.host.unlisten('m-sleeper')
    await world.host.put('m-sleeper', { state: 'stopped' })
  }
  return samples
}

const edge = spawnEdge(world)
try {
  await serving(edge)
  const first = await world.host.add('m-bench', { app: 'bench', state: 'stopped' })
  const backend = `${first.row.ip4}:${world.host.appPort}`
  await startBackend(backend)
  for (let i = 0; i < apps; i++) {
    // Awake, and never asked: they fill the maps and the slots.
    await world.host.add(`m-${i}`, { app: `app-${i}`, state: 'created', ip4: first.row.ip4 })
  }
  const filled = systemClock.now()
  for (let i = 0; i < apps; i++) await world.host.put(`m-${i}`, { state: 'started', ready: true })
  await world.host.put('m-bench', { state: 'started', ready: true })
  await settled(world)
  console.log(`${apps} apps woken through the bus in ${systemClock.now() - filled} ms`)
  await eventually(
    'the bench app',
    async () => (await get(world.settings, { host: 'bench.hangar.localhost' })).status === 200,
  )
  await world.host.add('m-bench-2', { app: 'second', state: 'stopped', ip4: first.row.ip4 })
  const change = await routeChangeMs()
  console.log(
    `route change, host's word to in effect: median ${median(change)} ms, worst ${Math.max(...change)} ms`,
  )

  const cold = await coldRequestMs()
  console.log(
    `cold request, above the time of the start: median ${median(cold)} ms, worst ${Math.max(...cold)} ms`,
  )

  const contenders = new Map<string, Contender>()
  const enter = (name: string, port: number, pid: number) =>
    contenders.set(name, { port, pid, rates: [], cpuUs: [] })
  enter(
    'edge',
    world.settings.http_port,
    findDaemon(`${world.settings.dir}/haproxy.json`)?.pid ?? 0,
  )
  const next = await chooseFreePort(world.host.appPort + 100)
  enter('static HAProxy, same headers', next, startStatic('same', next, backend, platformHeaders))
  enter('static HAProxy, no headers', next + 1, startStatic('bare', next + 1, backend, ''))
  if (existsSync('/usr/bin/caddy')) enter('Caddy', next + 2, startCaddy(next + 2, backend))
  for (const { port } of contenders.values()) {
    await eventually('a proxy', () => accepts(`127.0.0.1:${port}`))
  }
  for (let round = 0; round < rounds; round++) {
    for (const contender of contenders.values()) await measure(contender)
  }
  const ours = contenders.get('edge')!
  console.log(`
| proxy | requests/s, median of ${rounds} | edge is | processor time a request, least | edge takes |
| --- | --- | --- | --- | --- |`)
  for (const [name, { rates, cpuUs }] of contenders) {
    const rate = median(rates)
    const us = Math.min(...cpuUs)
    console.log(
      `| ${name} | ${Math.round(rate)} | ${(median(ours.rates) / rate).toFixed(2)} × | ${us.toFixed(1)} µs | ${(Math.min(...ours.cpuUs) / us).toFixed(2)} × |`,
    )
  }
} finally {
  for (const child of children) {
    child.kill('SIGKILL')
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  }
  await killed(edge)
  await world.close()
}
