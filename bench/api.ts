import { spawn, type ChildProcess } from 'node:child_process'
import { readFileSync } from 'node:fs'
import http from 'node:http'
import { join } from 'node:path'
import type { SeededHost } from './support/seeded-control.ts'
import { inTurns, median, option } from './support/rounds.ts'

/**
 * What reads of the API cost on the server's side: the requests of `fly status` and `fly m list` with 100 machines, a
 * list of 10,000 on five hosts, and 200 clients at once. Control and hosts are processes with their real databases and
 * HTTP servers; the machines are written into the hosts' stores. Beside each stands a `GET /healthz` of the same rounds:
 * what the machine that measures has to spare; and what control's process computed for a request, which others who use the
 * machine change less.
 *
 *   node bench/api.ts [--rounds 9] [--hosts 5] [--machines 2000] [--clients 200] [--seconds 5]
 */
const rounds = option('rounds', 9)
const hosts = option('hosts', 5)
const perHost = option('machines', 2_000)
const clients = option('clients', 200)
const seconds = option('seconds', 5)
const smallApp = { name: 'hundred', machines: 100 }

const children: ChildProcess[] = []

/** A process that answers one line with one line, and ends when its input does. */
async function child(file: string, args: string[], input?: unknown): Promise<unknown> {
  const path = join(import.meta.dirname, 'support', file)
  const one = spawn(process.execPath, [path, ...args], { stdio: ['pipe', 'pipe', 'inherit'] })
  children.push(one)
  if (input !== undefined) one.stdin.write(`${JSON.stringify(input)}\n`)
  let text = ''
  for await (const chunk of one.stdout) {
    text += String(chunk)
    if (text.includes('\n')) return JSON.parse(text)
  }
  throw new Error(`${file} ended before it was ready`)
}

interface Api {
  port: number
  token: string
}
interface Timed {
  ms: number
  bytes: number
  status: number
}

function timed(api: Api, agent: http.Agent, path: string, body?: unknown): Promise<Timed> {
  return new Promise((resolve, reject) => {
    const begun = performance.now()
    const request = http.request(
      {
        port: api.port,
        path,
        agent,
        method: body === undefined ? 'GET' : 'POST',
        headers: { authorization: `Bearer ${api.token}`, 'content-type': 'application/json' },
      },
      (incoming) => {
        let bytes = 0
        incoming.on('data', (chunk: Buffer) => (bytes += chunk.length))
        incoming.on('error', reject)
        incoming.on('end', () =>
          resolve({ ms: performance.now() - begun, bytes, status: incoming.statusCode ?? 0 }),
        )
      },
    )
    request.on('error', reject)
    request.end(body === undefined ? undefined : JSON.stringify(body))
  })
}

const compact = {
  query:
    'query ($appName: String!) { app(name: $appName) { id internalNumericId name hostname cnameTarget deployed network status appUrl platformVersion organization { id internalNumericId slug paidPlan } role { name } } }',
  variables: { appName: smallApp.name },
}
const latest = {
  query:
    'query ($image: String!) { latestImageDetails(image: $image) { registry repository tag } }',
  variables: { image: 'registry.example/web:deployment-01JD' },
}
const machinesOf = (app: string) => `/v1/apps/${app}/machines`

type Call = [path: string, body?: unknown]
const status: Call[] = [['/graphql', compact], [machinesOf(smallApp.name)], ['/graphql', latest]]
const list: Call[] = [['/graphql', compact], [machinesOf(smallApp.name)]]
const mixed: Call[] = [
  ['/graphql', compact],
  [`/v1/apps/${smallApp.name}`],
  ['/v1/apps'],
  ['/api/v1/organizations'],
  [`/api/v1/apps/${smallApp.name}/releases?limit=25`],
  ['/v1/platform/regions'],
  [machinesOf('ten')],
  [`/v1/apps/${smallApp.name}/secrets`],
]

const row = (...cells: string[]) => console.log(`| ${cells.join(' | ')} |`)
const ms = (value: number) => `${value.toFixed(1)} ms`
const spread = (samples: number[]) => `${ms(Math.min(...samples))} to ${ms(Math.max(...samples))}`
const verdict = (met: boolean) => (met ? 'met' : 'MISSED')

async function benchReads(api: Api): Promise<void> {
  const agent = new http.Agent({ keepAlive: true })
  const inOrder = async (calls: Call[]) => {
    let sum = 0
    for (const [path, body] of calls) {
      const answer = await timed(api, agent, path, body)
      if (answer.status !== 200) throw new Error(`${path} answered ${answer.status}`)
      sum += answer.ms
    }
    return sum
  }
  const contenders = {
    nothing: () => inOrder([['/healthz']]),
    status: () => inOrder(status),
    list: () => inOrder(list),
    all: () => inOrder([[machinesOf('all')]]),
  }
  await inTurns(3, contenders)
  const results = await inTurns(rounds, contenders)
  const { bytes } = await timed(api, agent, machinesOf('all'))
  agent.destroy()
  const aims = { status: 150, list: 150, all: 100 }
  const names = {
    nothing: '`GET /healthz`',
    status: '`fly status`, 100 machines, its requests summed',
    list: '`fly m list`, 100 machines, its requests summed',
    all: `list of ${hosts * perHost} machines on ${hosts} hosts, ${(bytes / 1e6).toFixed(1)} MB`,
  }
  console.log(`\n### Server time of reads, median of ${rounds}\n`)
  row('what', 'median', 'spread', 'aim')
  row('---', '---', '---', '---')
  for (const [key, name] of Object.entries(names)) {
    const samples = results[key] ?? []
    const aim = aims[key as keyof typeof aims]
    row(
      name,
      ms(median(samples)),
      spread(samples),
      aim ? `≤ ${aim} ms: ${verdict(median(samples) <= aim)}` : '',
    )
  }
}

/** Milliseconds that control's process has computed, in steps of 10. */
function controlCpuMs(): number {
  const stat = readFileSync(`/proc/${children.at(-1)?.pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')')).split(' ')
  return (Number(fields[12]) + Number(fields[13])) * 10
}

async function benchCrowd(api: Api): Promise<void> {
  const took: number[] = []
  const wrong: string[] = []
  const computed = controlCpuMs()
  const until = performance.now() + seconds * 1000
  await Promise.all(
    Array.from({ length: clients }, async (_, client) => {
      const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
      for (let turn = client; performance.now() < until; turn++) {
        const [path, body] = mixed[turn % mixed.length] as Call
        try {
          const answer = await timed(api, agent, path, body)
          took.push(answer.ms)
          if (answer.status !== 200) wrong.push(`${path}: ${answer.status}`)
        } catch (error) {
          wrong.push(`${path}: ${String(error)}`)
        }
      }
      agent.destroy()
    }),
  )
  took.sort((a, b) => a - b)
  const at = (share: number) => took[Math.floor(took.length * share)] ?? NaN
  console.log(`\n### ${clients} clients at once, ${seconds} s of mixed reads\n`)
  row('requests a second', 'median', 'p99', 'errors', 'control computes', 'aim')
  row('---', '---', '---', '---', '---', '---')
  const met = at(0.99) <= 250 && wrong.length === 0
  const rate = (took.length / seconds).toFixed(0)
  row(
    rate,
    ms(at(0.5)),
    ms(at(0.99)),
    String(wrong.length),
    `${((controlCpuMs() - computed) / took.length).toFixed(2)} ms a request`,
    `p99 ≤ 250 ms, 0 errors: ${verdict(met)}`,
  )
  for (const line of new Set(wrong)) console.log(line)
}

try {
  const seeded = await Promise.all(
    Array.from({ length: hosts }, (_, index) => {
      const apps =
        index === 0 ? ['hundred:100', 'ten:10', `all:${perHost - 110}`] : [`all:${perHost}`]
      return child('seeded-host.ts', [String(index), ...apps])
    }),
  )
  const api = (await child('seeded-control.ts', [], seeded as SeededHost[])) as Api
  await benchReads(api)
  await benchCrowd(api)
} finally {
  for (const one of children) one.stdin?.end()
}
