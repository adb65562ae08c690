import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { leaseNonceHeader, type Machine } from '#spec/machine.ts'
import { startTestCloud } from '../test/support/test-cloud.ts'
import { median, option, timedMs } from './support/rounds.ts'

/**
 * Our share of a deploy that a client drives: the requests of one `fly deploy` of an image that is there already against
 * one running machine, in the order and with the bodies that the client was seen to send, on a whole cloud. Its pauses are
 * left out, and what the machine itself takes to stop and start, which is the request that waits for it, is told apart.
 *
 *   node bench/client-deploy.ts [--rounds 9]
 */
const rounds = option('rounds', 9)
const app = 'share'
const machines = `/v1/apps/${app}/machines`
/** While it watches the new machine for ten seconds, it reads it and renews its lease so often. */
const watching = { reads: 8, renewals: 2 }

const cloud = await startTestCloud({ name: 'bench-client', images: ['nginx'] })
const token = readFileSync(join(cloud.home, 'token'), 'utf8').trim()

async function call<T>(line: string, body?: unknown, nonce?: string): Promise<T> {
  const [method = '', path = ''] = line.split(' ')
  const answer = await fetch(`http://127.0.0.1:${cloud.ports.api}${path}`, {
    method,
    headers: {
      authorization: `Bearer ${token}`,
      'content-type': 'application/json',
      ...(nonce === undefined ? {} : { [leaseNonceHeader]: nonce }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  const text = await answer.text()
  if (!answer.ok || text.includes('"errors":')) throw new Error(`${line}: ${answer.status} ${text}`)
  return JSON.parse(text || 'null') as T
}

const imageQuery =
  'query ($appName: String!, $imageRef: String!) { app(name: $appName) { id image(ref: $imageRef) { id digest ref compressedSize: compressedSizeFull manifest } } }'
const egressQuery =
  'query ($appName: String!) { app(name: $appName) { egressIpAddresses { nodes { id ip version region updatedAt } } } }'

function configOf(release: { id: string; version: number } | undefined) {
  return {
    env: { FLY_PROCESS_GROUP: 'app', PRIMARY_REGION: 'ord' },
    init: {},
    guest: { cpu_kind: 'shared', cpus: 1, memory_mb: 256 },
    metadata: {
      fly_platform_version: 'v2',
      fly_process_group: 'app',
      ...(release && {
        fly_release_id: release.id,
        fly_release_version: String(release.version),
      }),
    },
    services: [
      {
        protocol: 'tcp',
        internal_port: 80,
        autostop: false,
        autostart: true,
        min_machines_running: 1,
        ports: [
          { port: 80, handlers: ['http'] },
          { port: 443, handlers: ['http', 'tls'] },
        ],
        force_instance_key: null,
      },
    ],
    image: 'docker.io/library/nginx:latest',
  }
}

/** Milliseconds of one deploy: everything but the wait for the machine, and that wait. */
async function deploy(id: string): Promise<{ share: number; machine: number }> {
  const one = `${machines}/${id}`
  let machine = 0
  const all = await timedMs(async () => {
    const build = { app_name: app, builder_type: 'depot.dev' }
    await call(`GET /v1/apps/${app}`)
    await call('GET /api/v1/organizations/personal')
    const { id: number } = await call<{ id: number }>('POST /api/v1/builds', build)
    const image = { appName: app, imageRef: 'nginx:latest' }
    await call('POST /graphql', { query: imageQuery, variables: image })
    const built = { app_name: app, build_id: number, status: 'completed' }
    await call('POST /api/v1/builds/finish', built)
    await call(`GET ${machines}`)
    const { release } = await call<{ release: { id: string; version: number } }>(
      'POST /api/v1/releases',
      {
        app_name: app,
        build_id: number,
        definition: { app, primary_region: 'ord', build: { image: 'nginx:latest' } },
        image: 'docker.io/library/nginx:latest',
        strategy: 'ROLLING',
      },
    )
    await call('POST /graphql', { query: egressQuery, variables: { appName: app } })
    const move = (status: string) =>
      call(`PATCH /api/v1/releases/${release.id}`, { metadata: null, status })
    await move('running')
    const lease = () => call<{ data: { nonce: string } }>(`POST ${one}/lease?ttl=13`)
    const { nonce } = (await lease()).data
    const input = { config: configOf(release), region: 'ord', skip_secrets: false }
    await call(`POST ${one}`, input, nonce)
    machine = await timedMs(() => call(`GET ${one}/wait?state=started&timeout=60`))
    for (let at = 0; at < watching.reads; at++) await call(`GET ${one}`)
    for (let at = 0; at < watching.renewals; at++) {
      await call(`POST ${one}/lease?ttl=13`, undefined, nonce)
    }
    await call(`GET ${one}/ps`)
    await call(`DELETE ${one}/lease`, undefined, nonce)
    await move('complete')
  })
  return { share: all - machine, machine }
}

try {
  await call('POST /v1/apps', { app_name: app, org_slug: 'personal' })
  const { id } = await call<Machine>(`POST ${machines}`, { config: configOf(undefined) })
  await call(`GET ${machines}/${id}/wait?state=started&timeout=60`)
  await deploy(id)
  const results: Awaited<ReturnType<typeof deploy>>[] = []
  for (let round = 0; round < rounds; round++) {
    await sleep(200)
    results.push(await deploy(id))
  }
  const shares = results.map(({ share }) => share)
  const met = median(shares) <= 2_000 ? 'met' : 'MISSED'
  const ms = (value: number) => `${value.toFixed(0)} ms`
  console.log(`\n### A client's deploy of an unchanged image, one machine, median of ${rounds}\n`)
  console.log('| what | median | spread | aim |\n| --- | --- | --- | --- |')
  const spread = `${ms(Math.min(...shares))} to ${ms(Math.max(...shares))}`
  console.log(`| our share of its requests | ${ms(median(shares))} | ${spread} | ≤ 2 s: ${met} |`)
  const own = results.map(({ machine }) => machine)
  console.log(`| the machine's own stop and start, beside it | ${ms(median(own))} | | |`)
} finally {
  await cloud.destroy()
}
