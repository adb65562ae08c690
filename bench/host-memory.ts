import { readFileSync, rmSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Machine } from '#spec/machine.ts'
import { startTestCloud, type TestCloud } from '../test/support/test-cloud.ts'
import { option } from './support/rounds.ts'

/**
 * Resident memory of a host's process: empty, with container machines that run, and with many stopped ones beside them.
 *
 *   node bench/host-memory.ts [--running 50] [--stopped 1000]
 */
const running = option('running', 50)
const stopped = option('stopped', 1_000)
const aimMb = 150
const app = 'bench-memory'
/** Longer than the rounds in which a host looks after its machines. */
const settleMs = 20_000

async function api<T>(cloud: TestCloud, method: string, path: string, body?: unknown): Promise<T> {
  const answer = await cloud.api(method, path, body)
  if (answer.status >= 400) throw new Error(`${method} ${path}: ${answer.status} ${answer.body}`)
  return JSON.parse(answer.body || 'null') as T
}

const create = (cloud: TestCloud, more: object) =>
  api<Machine>(cloud, 'POST', `/v1/apps/${app}/machines`, {
    config: {
      image: 'busybox',
      guest: { cpu_kind: 'shared', cpus: 1, memory_mb: 256 },
      init: { exec: ['/bin/sleep', '100000'] },
      metadata: { fly_process_group: 'app' },
    },
    ...more,
  })

/** Several at a time, as clients do. */
async function times(count: number, work: () => Promise<unknown>): Promise<void> {
  let left = count
  const worker = async () => {
    while (left-- > 0) await work()
  }
  await Promise.all(Array.from({ length: 4 }, worker))
}

async function residentMb(pid: number): Promise<number> {
  await sleep(settleMs)
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) / 1024
}

const upArgs = ['--runtime', 'container']
const cloud = await startTestCloud({ name: 'bench-memory', images: ['busybox'], upArgs })
try {
  await api(cloud, 'POST', '/v1/apps', { app_name: app, org_slug: 'personal' })
  const pid = cloud.daemons('host')[0]?.pid ?? 0
  const empty = await residentMb(pid)
  await times(running, async () => {
    const { id } = await create(cloud, {})
    await api(cloud, 'GET', `/v1/apps/${app}/machines/${id}/wait?state=started&timeout=60`)
  })
  const some = await residentMb(pid)
  await times(stopped, () => create(cloud, { skip_launch: true }))
  const all = await residentMb(pid)
  const mb = (value: number) => `${value.toFixed(0)} MB`
  console.log('\n### Resident memory of a host’s process\n')
  console.log('| what | resident | aim |\n| --- | --- | --- |')
  console.log(`| without machines | ${mb(empty)} | |`)
  console.log(`| ${running} running containers | ${mb(some)} | |`)
  const verdict = all <= aimMb ? 'met' : 'MISSED'
  console.log(`| and ${stopped} stopped | ${mb(all)} | ≤ ${aimMb} MB: ${verdict} |`)
} finally {
  await cloud.destroy()
  rmSync(cloud.home, { recursive: true, force: true })
}
