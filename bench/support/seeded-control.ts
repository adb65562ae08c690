import { readFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { createInterface } from 'node:readline'
import { serve } from '@hono/node-server'
import { createApi } from '#api/server.ts'
import { createApp } from '#control/apps/index.ts'
import { ensureFirstToken } from '#control/auth/index.ts'
import { ensureOrg } from '#control/orgs/index.ts'
import { startTestControl } from '#control/test-support.ts'

/**
 * Control's process on a PostgreSQL of its own, with placements on hosts that run already.
 *
 *   node bench/support/seeded-control.ts    reads [{url, ids}…] as one line; says its port and a token in another
 */
export interface SeededHost {
  url: string
  /** Machines by app. */
  ids: Record<string, string[]>
}

const control = await startTestControl([])
const { ctx } = control

async function seed(hosts: SeededHost[]): Promise<void> {
  const org = await ensureOrg(ctx, 'personal', 'Personal')
  const names = new Set(hosts.flatMap(({ ids }) => Object.keys(ids)))
  for (const name of names) {
    const app = await createApp(ctx, { name, org })
    // Hosts know an app by its name too, which is all that they were seeded with.
    await ctx.db.updateTable('apps').set({ id: name }).where('id', '=', app.id).execute()
  }
  for (const [number, { url, ids }] of hosts.entries()) {
    const beat = () =>
      ctx.hosts.note({
        v: 1,
        host: `h${number}`,
        number: number + 1,
        region: 'ord',
        api: url,
        counter: 1,
        at: Date.now(),
        capacity: { cpus: 1000, memory_mb: 1_000_000 },
        used: { cpus: 0, memory_mb: 0, machines: 0 },
      })
    beat()
    setInterval(beat, 1_000)
    for (const [app, machines] of Object.entries(ids)) {
      const rows = machines.map((machine_id) => ({
        machine_id,
        app_id: app,
        name: machine_id,
        region: 'ord',
        host_id: `h${number}`,
        host_api: url,
        status: 'placed' as const,
        placed_by: 'bench',
      }))
      for (let at = 0; at < rows.length; at += 1_000) {
        const some = rows.slice(at, at + 1_000)
        await ctx.db.insertInto('machine_placements').values(some).execute()
      }
    }
  }
}

const input = createInterface({ input: process.stdin })
input.once('line', (line) => {
  void (async () => {
    await seed(JSON.parse(line) as SeededHost[])
    await ensureFirstToken(ctx)
    const server = serve({ fetch: createApi(ctx).fetch, hostname: '127.0.0.1', port: 0 })
    if (!server.listening) await new Promise((resolve) => server.once('listening', resolve))
    const { port } = server.address() as AddressInfo
    const token = readFileSync(ctx.settings.first_token_file, 'utf8').trim()
    process.stdout.write(`${JSON.stringify({ port, token })}\n`)
  })()
})
input.on('close', () => void control.close().then(() => process.exit(0)))
