import { systemClock } from '#core/clock.ts'
import { Fault } from '#core/fault.ts'
import { parseSizeMb } from '#core/units.ts'
import type { Volume } from '#spec/volume.ts'
import { part, type Api } from './api.ts'
import type { Call } from './command.ts'
import { withJitter } from './jitter.ts'
import { complain, say, sayJson, type Io } from './io.ts'

export const volumesPath = (app: string): string => `/v1/apps/${part(app)}/volumes`

export const volumePath = (app: string, id: string): string => `${volumesPath(app)}/${part(id)}`

/** VOL-11: still in the list, and of no use any more. */
export const isDestroyed = ({ state }: Volume): boolean =>
  state === 'scheduling_destroy' || state === 'pending_destroy'

/** The volume that the command is about. Fault `not_found`. */
export async function getVolume(call: Call, id: string): Promise<Volume> {
  const app = await call.appName()
  const volume = await call.api().find<Volume>(volumePath(app, id))
  if (volume) return volume
  throw new Fault('not_found', `app ${app} has no volume ${id}; see: hangar volumes list -a ${app}`)
}

export async function showVolume({ io, flags, appName }: Call, volume: Volume): Promise<void> {
  if (flags.on('json')) sayJson(io, volume)
  else sayVolume(io, volume, await appName())
}

function sayVolume(io: Io, volume: Volume, app: string): void {
  const rows: [string, string | number | boolean][] = [
    ['ID', volume.id],
    ['Name', volume.name],
    ['App', app],
    ['Region', volume.region],
    ['Zone', volume.zone],
    ['Size GB', volume.size_gb],
    ['Encrypted', volume.encrypted],
    ['Created at', volume.created_at],
    ['Snapshot retention', volume.snapshot_retention],
    ['Scheduled snapshots', volume.auto_backup_enabled],
  ]
  if (volume.state !== 'created') rows.push(['State', volume.state])
  for (const [name, value] of rows) say(io, `${name.padStart(20)}: ${value}`)
}

/** Not yet as its user will find it. */
const unfinished = new Set<Volume['state']>(['creating', 'restoring', 'hydrating'])
const lookEveryMs = 1_000
const fillMsMax = 60 * 60_000

/**
 * Follows a volume that is made from something until all of its content is there, and returns it. It is filled in the
 * cloud: ending this command does not end it.
 */
export async function untilFilled(
  { io, flags }: Pick<Call, 'io' | 'flags'>,
  options: { api: Api; app: string; volume: Volume },
): Promise<Volume> {
  const { api, app } = options
  let { volume } = options
  const deadline = systemClock.now() + fillMsMax
  let told = ''
  while (unfinished.has(volume.state)) {
    const news = `Volume ${volume.id} is ${volume.state}${volume.error ? `: ${volume.error}` : ''}`
    if (news !== told && (volume.error || !flags.on('json'))) complain(io, news)
    told = news
    if (systemClock.now() > deadline) {
      throw new Fault(
        'timeout',
        `volume ${volume.id} is still ${volume.state}; it goes on in the cloud, see: hangar volumes show ${volume.id} -a ${app}`,
      )
    }
    await systemClock.sleep(withJitter(lookEveryMs), io.signal)
    volume = await api.get<Volume>(volumePath(app, volume.id))
  }
  return volume
}

const gigabyteMb = 1024

/** GB from `4`, `7gb`, `+1` or `+1gb`; with a plus it is added to what the volume has. Fault `bad_request`. */
export function sizeGbFrom(text: string, presentGb: number): number {
  const sizeMb = parseSizeMb(text.replace(/^\+/, ''), 'gb')
  const sizeGb = (sizeMb ?? 0) / gigabyteMb
  if (!Number.isInteger(sizeGb) || sizeGb < 1) {
    throw new Fault(
      'bad_request',
      `--size "${text}" is not a size in whole gigabytes; write it like 4, 4gb, or +1 for one more`,
    )
  }
  return text.startsWith('+') ? presentGb + sizeGb : sizeGb
}
