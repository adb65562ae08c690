import { z } from 'zod'
import { machineRowSchema, type MachineRow } from '#spec/roster.ts'
import { systemClock } from '#core/clock.ts'
import { messageOf } from '#core/fault.ts'
import { readJsonFile, writeFileAtomic } from '#sys/files.ts'
import type { Logger } from '#sys/log.ts'
import { isNewer } from './routes.ts'

/** The newest row of each machine, by app, with a good copy on disk so that an edge starts without the bus. */
export interface RowTable {
  /** False when the row is no newer than the one known. */
  put(row: MachineRow): boolean
  /** The app whose machine went, or undefined when it was not known. */
  forget(gone: { host: string; id: string }): string | undefined
  get(id: string): MachineRow | undefined
  ofApp(app: string): MachineRow[]
  all(): IterableIterator<MachineRow>
  apps(): IterableIterator<string>
  flush(): void
}

const saveDelayMs = 1_000
const fileSchema = z.object({ rows: z.array(z.unknown()) })

export function openRowTable({ file, log }: { file: string; log: Logger }): RowTable {
  const rows = new Map<string, MachineRow>()
  const apps = new Map<string, Map<string, MachineRow>>()
  let saving = false

  const insert = (row: MachineRow) => {
    const before = rows.get(row.id)
    if (before && !isNewer(row, before)) return false
    if (before && before.app !== row.app) apps.get(before.app)?.delete(row.id)
    rows.set(row.id, row)
    const ofApp = apps.get(row.app) ?? new Map<string, MachineRow>()
    ofApp.set(row.id, row)
    apps.set(row.app, ofApp)
    return true
  }

  const save = () => {
    saving = false
    try {
      writeFileAtomic(file, JSON.stringify({ rows: [...rows.values()] }), 0o600)
    } catch (error) {
      log.warn({ file, error: messageOf(error) }, 'cannot save the last good copy of the roster')
    }
  }
  const saveSoon = () => {
    if (saving) return
    saving = true
    void systemClock.sleep(saveDelayMs).then(() => (saving ? save() : undefined))
  }

  for (const value of fileSchema.safeParse(readJsonFile(file)).data?.rows ?? []) {
    const row = machineRowSchema.safeParse(value)
    if (row.success) insert(row.data)
  }
  return {
    put(row) {
      const isNew = insert(row)
      if (isNew) saveSoon()
      return isNew
    },
    forget({ host, id }) {
      const row = rows.get(id)
      if (!row || row.host !== host) return undefined
      rows.delete(id)
      const ofApp = apps.get(row.app)
      ofApp?.delete(id)
      if (ofApp?.size === 0) apps.delete(row.app)
      saveSoon()
      return row.app
    },
    get: (id) => rows.get(id),
    ofApp: (app) => [...(apps.get(app)?.values() ?? [])],
    all: () => rows.values(),
    apps: () => apps.keys(),
    flush: () => (saving ? save() : undefined),
  }
}
