import { systemClock } from '#core/clock.ts'
import type { Snapshot } from '#spec/volume.ts'
import { relativeTime } from '../age.ts'
import type { Call, Command } from '../command.ts'
import { aboutApp, jsonFlag } from '../flags.ts'
import { complain, say, sayJson } from '../io.ts'
import { sayTable } from '../table.ts'
import { volumePath } from '../volumes.ts'

const snapshotsPath = (app: string, volume: string) => `${volumePath(app, volume)}/snapshots`

/** What a volume's size is counted in: `512 B`, `1.5 MiB`, `4 GiB`. */
function binaryBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let value = bytes
  let unit = 0
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit++
  }
  return `${Number(value.toFixed(value < 10 ? 1 : 0))} ${units[unit]}`
}

/** VOL-14: also of a volume that was destroyed. */
async function runList(call: Call): Promise<number> {
  const { io, args, flags } = call
  const id = args[0] ?? ''
  const snapshots = await call.api().get<Snapshot[]>(snapshotsPath(await call.appName(), id))
  if (flags.on('json')) {
    sayJson(io, snapshots)
    return 0
  }
  if (snapshots.length === 0) {
    complain(io, `No snapshots available for volume ${id}`)
    return 0
  }
  sayTable(io, {
    headers: ['ID', 'Status', 'Stored Size', 'Vol Size', 'Created At', 'Retention Days'],
    rows: snapshots.map((snapshot) => [
      snapshot.id,
      snapshot.status,
      binaryBytes(snapshot.size),
      binaryBytes(snapshot.volume_size),
      relativeTime(snapshot.created_at, systemClock.now()),
      String(snapshot.retention_days),
    ]),
  })
  for (const { error, id: failed } of snapshots) {
    if (error) complain(io, `Snapshot ${failed} failed: ${error}`)
  }
  const total = snapshots.reduce((sum, { size }) => sum + size, 0)
  say(io, `Total stored size: ${binaryBytes(total)}`)
  return 0
}

async function runCreate(call: Call): Promise<number> {
  const { io, args, flags } = call
  const id = args[0] ?? ''
  const app = await call.appName()
  const snapshot = await call.api().post<Snapshot>(snapshotsPath(app, id))
  if (flags.on('json')) sayJson(io, snapshot)
  else say(io, `Scheduled to snapshot volume ${id}: ${snapshot.id}`)
  return 0
}

export const snapshots: Command = {
  name: 'snapshots',
  aliases: ['snapshot', 'snaps'],
  summary: 'Manage volume snapshots',
  commands: [
    {
      name: 'list',
      aliases: ['ls'],
      summary: 'List the snapshots of a volume, also of a destroyed one',
      args: 'VOLUME',
      argsMin: 1,
      argsMax: 1,
      flags: [...aboutApp, jsonFlag],
      run: runList,
    },
    {
      name: 'create',
      summary: 'Take a snapshot of a volume',
      args: 'VOLUME',
      argsMin: 1,
      argsMax: 1,
      flags: [...aboutApp, jsonFlag],
      run: runCreate,
    },
  ],
}
