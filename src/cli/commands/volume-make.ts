import { Fault } from '#core/fault.ts'
import type { Volume, VolumeInput } from '#spec/volume.ts'
import { getApp } from '../apps.ts'
import type { Call, Command, Flag } from '../command.ts'
import { aboutApp, detachFlag, jsonFlag, regionFlag, yesFlag } from '../flags.ts'
import { confirm } from '../prompt.ts'
import { nearestRegion } from '../regions.ts'
import { getVolume, showVolume, untilFilled, volumesPath } from '../volumes.ts'

/** CONF-5. */
const sizeDefaultGb = 1

const zoneFlags: readonly Flag[] = [
  {
    name: 'require-unique-zone',
    kind: 'switch',
    summary: 'Not on the host of another volume of this name, while there is another host',
    fallback: 'true',
  },
  {
    name: 'unique-zone-app-wide',
    kind: 'switch',
    summary: 'Not on the host of any volume of the app, or not at all',
  },
]

/** The flags that were given, and nothing else: what is absent is the server's to choose. */
function zoneInput({ flags }: Call): Partial<VolumeInput> {
  return {
    ...(flags.given('require-unique-zone')
      ? { require_unique_zone: flags.on('require-unique-zone') }
      : {}),
    ...(flags.given('unique-zone-app-wide')
      ? { unique_zone_app_wide: flags.on('unique-zone-app-wide') }
      : {}),
  }
}

async function makeVolume(call: Call, app: string, input: Partial<VolumeInput>): Promise<void> {
  const api = call.api()
  const volume = await api.post<Volume>(volumesPath(app), input)
  const shown = call.flags.on('detach') ? volume : await untilFilled(call, { api, app, volume })
  await showVolume(call, shown)
}

async function runCreate(call: Call): Promise<number> {
  const { io, flags, args } = call
  const api = call.api()
  const app = await call.appName()
  await getApp(api, app)
  const count = flags.number('count') ?? 1
  const region = flags.text('region') ?? (await nearestRegion(api))
  const snapshot = flags.text('snapshot-id')
  if (count === 1 && io.interactive && !flags.on('yes')) {
    const question =
      'A volume lives on one host: with only one, the app is down while that host is. Create it?'
    if (!(await confirm(io, question, { flag: '--yes', fallback: true }))) return 0
  }
  const input: VolumeInput = {
    name: args[0] ?? '',
    region,
    // Restored without a size it is as large as what it is restored from.
    ...(snapshot && !flags.given('size') ? {} : { size_gb: flags.number('size') ?? sizeDefaultGb }),
    ...(snapshot ? { snapshot_id: snapshot } : {}),
    ...(flags.given('snapshot-retention')
      ? { snapshot_retention: flags.number('snapshot-retention') }
      : {}),
    ...(flags.given('scheduled-snapshots')
      ? { auto_backup_enabled: flags.on('scheduled-snapshots') }
      : {}),
    ...(flags.on('no-encryption') ? { encrypted: false } : {}),
    ...zoneInput(call),
  }
  for (let i = 0; i < count; i++) await makeVolume(call, app, input)
  return 0
}

async function runFork(call: Call): Promise<number> {
  const { flags, args } = call
  const app = await call.appName()
  const source = await getVolume(call, args[0] ?? '')
  if (source.host_status !== 'ok') {
    throw new Fault(
      'host_unreachable',
      `volume ${source.id} is on a host that cannot be reached; take one of its snapshots instead: hangar volumes snapshots list ${source.id} -a ${app}, then hangar volumes create ${source.name} --snapshot-id ID -a ${app}`,
    )
  }
  await makeVolume(call, app, {
    name: flags.text('name') ?? source.name,
    source_volume_id: source.id,
    ...(flags.given('region') ? { region: flags.text('region') } : {}),
    ...zoneInput(call),
  })
  return 0
}

const createFlags: readonly Flag[] = [
  ...aboutApp,
  jsonFlag,
  yesFlag,
  regionFlag,
  {
    name: 'size',
    short: 's',
    kind: 'number',
    value: 'GB',
    summary: 'The size in gigabytes; of a snapshot, that of its volume',
    fallback: '1',
  },
  {
    name: 'count',
    short: 'n',
    kind: 'number',
    value: 'N',
    summary: 'How many to create',
    fallback: '1',
  },
  { name: 'snapshot-id', kind: 'text', value: 'ID', summary: 'Create it from this snapshot' },
  { name: 'snapshot-retention', kind: 'number', value: 'DAYS', summary: 'Days to keep snapshots' },
  {
    name: 'scheduled-snapshots',
    kind: 'switch',
    summary: 'Take a snapshot every day',
    fallback: 'true',
  },
  { name: 'no-encryption', kind: 'switch', summary: 'Do not encrypt it' },
  ...zoneFlags,
  detachFlag,
]

export const createVolume: Command = {
  name: 'create',
  summary: 'Create a volume for an app',
  args: 'NAME',
  argsMin: 1,
  argsMax: 1,
  flags: createFlags,
  run: runCreate,
}

export const forkVolume: Command = {
  name: 'fork',
  summary: 'Make an independent copy of a volume, on another host where there is one',
  args: 'ID',
  argsMin: 1,
  argsMax: 1,
  flags: [
    ...aboutApp,
    jsonFlag,
    regionFlag,
    { name: 'name', short: 'n', kind: 'text', value: 'NAME', summary: 'The name of the copy' },
    ...zoneFlags,
    detachFlag,
  ],
  run: runFork,
}
