import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { fakeDriver } from '#host/runtime/index.ts'
import { openStore, type MachineRecord } from '#host/store/index.ts'
import { openTestHost } from '#host/testing.ts'
import type { MachineConfig } from '#spec/machine-config.ts'

/**
 * A host's process with its real store, presenter and HTTP server, and machines that were written straight into the
 * store: as many as its limit, sleeping, each with the config and the events of an ordinary app.
 *
 *   node bench/support/seeded-host.ts HOST APP:COUNT…      says its URL in one line; ends with its input
 */
const [prefix = '1', ...wanted] = process.argv.slice(2)

const config: MachineConfig = {
  image: 'registry.example/web:deployment-01JD0000000000000000000000',
  env: { PRIMARY_REGION: 'ord', PORT: '8080', RAILS_ENV: 'production' },
  guest: { cpu_kind: 'shared', cpus: 1, memory_mb: 256 },
  init: {},
  metadata: {
    fly_flyctl_version: '0.4.1',
    fly_platform_version: 'v2',
    fly_process_group: 'app',
    fly_release_id: 'rel_0123456789abcdef',
    fly_release_version: '7',
  },
  restart: { policy: 'on-failure', max_retries: 10 },
  services: [
    {
      protocol: 'tcp',
      internal_port: 8080,
      autostop: 'stop',
      autostart: true,
      min_machines_running: 0,
      ports: [
        { port: 80, handlers: ['http'], force_https: true },
        { port: 443, handlers: ['http', 'tls'] },
      ],
      checks: [{ type: 'http', interval: '10s', timeout: '2s', method: 'GET', path: '/up' }],
      concurrency: { type: 'requests', soft_limit: 200, hard_limit: 250 },
    },
  ],
}

function recordOf(app: string, index: number, now: number): MachineRecord {
  const id = `${prefix}${index.toString(16).padStart(8, '0')}`.padStart(14, '0')
  const version = `01JD${id.toUpperCase()}`.padEnd(26, '0')
  const image = { registry: 'registry.example', repository: 'web', tag: 'deployment-01JD' }
  return {
    id,
    name: `m-${id}`,
    app: { id: app, name: app, org: 'personal', network: 1 },
    index: index + 2,
    region: 'ord',
    instanceId: version,
    config,
    image: {
      ...image,
      digest: `sha256:${'0123456789abcdef'.repeat(4)}`,
      labels: null,
      ref: config.image,
      size: 1,
      exposed_ports: [],
    },
    life: {
      state: 'stopped',
      after: 'rest',
      halt: null,
      resume: false,
      startAt: null,
      returning: false,
    },
    cordoned: false,
    ready: false,
    ip4: '10.0.0.2',
    run: 1,
    restarts: [],
    startWithHost: false,
    lastError: null,
    createdAt: now,
    updatedAt: now,
    changedAt: now,
    destroyedAt: null,
  }
}

const dir = mkdtempSync(join(tmpdir(), 'hangar-bench-host-'))
const store = openStore(dir)
const ids: Record<string, string[]> = {}
store.transaction(() => {
  let index = 0
  for (const word of wanted) {
    const [app = '', count = '0'] = word.split(':')
    for (let i = 0; i < Number(count); i++) {
      const record = recordOf(app, index++, Date.now())
      store.machines.save(record)
      for (const type of ['launch', 'start', 'stop', 'exit'] as const) {
        const id = `01JE${String(index).padStart(8, '0')}${type}`
        const event = {
          id,
          type,
          status: 'stopped',
          source: 'flyd',
          timestamp: Date.now(),
        } as const
        store.history.addEvent(record.id, event)
      }
      ;(ids[app] ??= []).push(record.id)
    }
  }
})
store.close()
const closing: (() => unknown)[] = []
const scope = { after: (act: () => unknown) => void closing.push(act) }
const host = await openTestHost(scope as unknown as TestContext, { dir, driver: fakeDriver() })
process.stdout.write(`${JSON.stringify({ url: host.url, ids })}\n`)
process.stdin.resume()
process.stdin.on('end', () => {
  for (const act of closing) act()
  process.exit(0)
})
