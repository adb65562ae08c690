import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { MachineRow } from '#spec/roster.ts'
import { eventually } from '#sys/test-support.ts'
import { exampleRow, silentLog, webService } from '../test-support.ts'
import type { ProxyPaths } from './config.ts'
import { openRouteTable } from './route-table.ts'
import { Router } from './router.ts'

const log = silentLog

/** A table of rows in memory, and an HAProxy that does as it is told, a moment after it was. */
function openWorld() {
  const kept = new Map<string, MachineRow>()
  const rows = {
    put: (row: MachineRow) => kept.set(row.id, row) !== undefined,
    forget: () => undefined,
    get: (id: string) => kept.get(id),
    ofApp: () => [...kept.values()],
    all: () => kept.values(),
    apps: () => ['web'].values(),
    flush() {},
  }
  const table = openRouteTable({ rows, domain: 'x', log })
  const history: string[] = []
  /** What comes while HAProxy is told something. */
  const meanwhile: (() => void)[] = []
  const admin = {
    async run(commands: readonly string[]) {
      if (!commands.some((command) => /^(add|set) map/.test(command))) return commands.map(() => '')
      meanwhile.shift()?.()
      await new Promise(setImmediate)
      history.push(commands.at(-1) ?? '')
      return commands.map(() => '')
    },
    runWithPayload: async () => '',
  }
  const paths = { httpMap: 'http', httpsMap: 'https', ownersMap: 'owners' } as ProxyPaths
  const onApplied = ({ counter }: MachineRow) => void history.push(`row ${counter} is in effect`)
  const router = new Router({ admin, table, paths, slots: 4, log, onApplied })
  return { table, router, history, meanwhile }
}

test('a row that comes while HAProxy is told the one before is in effect only once HAProxy has it', async (t) => {
  const { table, router, history, meanwhile } = openWorld()
  t.after(() => router.close())
  const resting = { state: 'stopped', ready: false } as const
  const ports = [{ port: 443, handlers: ['http' as const, 'tls' as const] }]
  const secure = [
    webService(80, {
      ports: [{ port: 80, handlers: ['http' as const], force_https: true }, ...ports],
    }),
  ]
  meanwhile.push(() => table.put(exampleRow({ ...resting, counter: 2, services: secure })))
  table.put(exampleRow({ ...resting, counter: 1, services: [webService(80)] }))
  router.resume()
  await eventually('the second is in effect', () => history.includes('row 2 is in effect'))
  assert.deepEqual(history, [
    'add map https web.x slot0',
    'row 1 is in effect',
    'set map http web.x force_https',
    'row 2 is in effect',
  ])
})
