import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import { clientNetworkOf, type ClientNetwork } from '#core/client-network.ts'
import { daemonReady, findDaemon, startDaemon, stopDaemon } from '#sys/daemon.ts'
import { freePort } from '#sys/test-support.ts'
import { run, runOk } from '#sys/process.ts'
import { openClientNetwork, removeClientNetwork } from './client-network.ts'
import type { Home } from './home.ts'
import { programFile } from './roles.ts'
import { writeState } from './state.ts'
import { removeHome, temporaryHome } from './test-support.ts'

const cloudId = randomBytes(2).toString('hex')
let home: Home
let network: ClientNetwork
let wrapper = ''
let apiPort = 0

/** Answers like control: the API in words, names by sending the question back. */
const control = `
const port = Number(process.argv[1])
require('node:http').createServer((_, res) => res.end('the api')).listen(port, '127.0.0.1')
const names = require('node:dgram').createSocket('udp4')
names.on('message', (query, from) => names.send('to ' + query, from.port, from.address))
names.bind(port, '127.0.0.1')`

/** Stands in for the client: does what its first argument says. */
const client = `#!${process.execPath}
const [verb, port] = process.argv.slice(2)
const since = Date.now()
const say = (outcome) => console.log(JSON.stringify({ ...outcome, ms: Date.now() - since }))
const failed = (error) => say({ error: error.code ?? error.cause?.code ?? String(error) })
/** Segments of TCP that were sent once more, in the network that this runs in. */
const sentAgain = () => {
  const rows = require('node:fs').readFileSync('/proc/self/net/snmp', 'utf8').split('\\n')
  const [names, values] = rows.filter((row) => row.startsWith('Tcp:')).map((row) => row.split(' '))
  return Number(values[names.indexOf('RetransSegs')])
}
const verbs = {
  http: () => fetch('http://127.0.0.1:' + port).then((r) => r.text()).then((text) => say({ text }), failed),
  outside: () => require('node:net').connect(443, '192.0.2.1').on('error', failed).on('connect', () => say({})),
  lookup: () => new (require('node:dns').promises.Resolver)({ timeout: 5000, tries: 1 }).resolve4('clientsdk.launchdarkly.com').then(say, failed),
  udp: () => {
    const socket = require('node:dgram').createSocket('udp4').on('error', failed)
    socket.on('message', (m) => { say({ text: String(m) }); socket.close() })
    socket.send('question', 53, '8.8.8.8')
  },
  burst: () => {
    let left = 200
    const before = sentAgain()
    const refused = () => --left === 0 && say({ sentAgain: sentAgain() - before })
    for (let i = 0; i < 200; i++) require('node:net').connect(443, '192.0.2.1').on('error', refused)
  },
  exit: () => process.exit(Number(port)),
  input: () => process.stdin.pipe(process.stdout),
  wait: () => { process.on('SIGTERM', () => process.exit(43)); setInterval(() => {}, 1000); console.log(process.pid) },
}
verbs[verb]()
`

before(async () => {
  home = temporaryHome()
  apiPort = await freePort()
  const ports = { http: 1, https: 2, api: apiPort, registry: 4, nats: 5 }
  const state = { version: 1 as const, cloud_id: cloudId, domain: 'hangar.localhost', ports }
  writeState(home, { ...state, ports_wanted: ports, places: [], overrides: {} })
  writeFileSync(home.token, 'fo1_test')
  network = clientNetworkOf(cloudId)
  writeFileSync(join(home.dir, 'client'), client)
  chmodSync(join(home.dir, 'client'), 0o755)
  wrapper = join(home.dir, 'wrapper')
  const words = `flyctl-wrapper ${wrapper} --flyctl ${home.dir}/client --isolated --home ${home.dir}`
  const made = await run(process.execPath, [programFile, ...words.split(' ')])
  assert.equal(made.code, 0, made.stderr)
})
after(async () => {
  await stopDaemon(home.record('control'), 'SIGKILL')
  await removeClientNetwork(cloudId)
  removeHome(home)
})

async function startControl(): Promise<void> {
  const files = {
    name: 'control',
    recordFile: home.record('control'),
    logFile: home.log('control'),
  }
  const args = ['-e', control, String(apiPort)]
  const record = startDaemon({ ...files, command: process.execPath, args })
  const answers = () => fetch(`http://127.0.0.1:${apiPort}`).then(({ ok }) => ok)
  await daemonReady(files, record, answers, 60_000)
}

const wrapped = async (...args: (string | number)[]) => {
  const { stdout } = await promisify(execFile)(wrapper, args.map(String), { env: {} })
  return JSON.parse(stdout) as { text?: string; error?: string; ms: number; sentAgain?: number }
}

async function assertNothingLeft(): Promise<void> {
  assert.equal(existsSync(`/sys/class/net/${network.link}`), false)
  assert.equal(existsSync(`/run/netns/${network.netns}`), false)
  assert.doesNotMatch(await runOk('nft', ['list', 'tables']), new RegExp(network.netns))
}

test('without a cloud that runs it is refused, and nothing is made', async () => {
  await assert.rejects(openClientNetwork(home), /does not run; start it: hangar up/)
  const refused = await run(wrapper, ['exit', '0'])
  assert.equal(refused.code, 1)
  assert.match(refused.stderr, /does not run; start it: hangar up/)
  await assertNothingLeft()
})

test('the first 20 clients at once share one network, each in an emptied environment', async () => {
  await startControl()
  const all = await Promise.all(Array.from({ length: 20 }, () => wrapped('http', apiPort)))
  assert.deepEqual(new Set(all.map(({ text }) => text)), new Set(['the api']))
  assert.equal(existsSync(`/run/netns/${network.netns}`), true)
})

test('inside, this machine is all there is, and everything else is refused at once', async () => {
  assert.equal((await wrapped('udp')).text, 'to question')
  assert.equal((await wrapped('http', apiPort)).text, 'the api')
  const free = await freePort()
  const refused = [
    await wrapped('http', free),
    await wrapped('outside'),
    // The answer is the stub's, which is not DNS; what counts is that a resolver answers.
    await wrapped('lookup'),
  ]
  for (const { error, ms } of refused) assert.ok(error && ms < 4_500, `${error} after ${ms} ms`)
  // The kernel sends only so many ICMP messages a second; what waits for the next one would ask again, and wait seconds.
  assert.equal((await wrapped('burst')).sentAgain, 0)
})

test('streams, signals and the exit code are the client’s own', async () => {
  assert.equal((await run(wrapper, ['exit', '7'])).code, 7)
  assert.equal((await run(wrapper, ['input'], { input: 'through' })).stdout, 'through')
  const child = spawn(wrapper, ['wait'], { env: {}, stdio: ['ignore', 'pipe', 'inherit'] })
  const [line] = (await once(child.stdout, 'data')) as [Buffer]
  assert.equal(Number(String(line)), child.pid, 'no process stands between')
  child.kill('SIGTERM')
  assert.equal((await once(child, 'exit'))[0], 43)
})

test('killed with -9 while it is made, it is made by the next call', async () => {
  for (const half of [`/run/netns/${network.netns}`, `/sys/class/net/${network.link}`]) {
    await removeClientNetwork(cloudId)
    const making = spawn(process.execPath, [programFile, 'isolate', '--home', home.dir])
    const ended = once(making, 'exit')
    while (!existsSync(half) && making.exitCode === null) {
      await new Promise((resolve) => setTimeout(resolve, 1))
    }
    making.kill('SIGKILL')
    assert.equal((await ended)[1], 'SIGKILL', 'it was not done yet')
    assert.equal((await wrapped('http', apiPort)).text, 'the api', half)
  }
})

test('what is complete is kept as it is; removed, nothing of it is left', async () => {
  const child = spawn(wrapper, ['wait'], { env: {}, stdio: ['ignore', 'pipe', 'inherit'] })
  await once(child.stdout, 'data')
  const index = await runOk('cat', [`/sys/class/net/${network.link}/ifindex`])
  await openClientNetwork(home)
  assert.equal(await runOk('cat', [`/sys/class/net/${network.link}/ifindex`]), index)
  assert.equal(await removeClientNetwork(cloudId), true, 'also while a client runs')
  await assertNothingLeft()
  child.kill('SIGKILL')
  await once(child, 'exit')
  assert.equal(await removeClientNetwork(cloudId), false)
  assert.ok(findDaemon(home.record('control')))
})
