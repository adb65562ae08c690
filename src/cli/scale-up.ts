import { Fault } from '#core/fault.ts'
import type { Machine, MachineInput } from '#spec/machine.ts'
import type { MachineConfig } from '#spec/machine-config.ts'
import { machineConfigFor } from '#spec/flatten.ts'
import { parseDefinition } from '#spec/fly-toml.ts'
import type { Volume } from '#spec/volume.ts'
import { part, type Api } from './api.ts'
import { listReleases } from './apps.ts'

/** What a new machine of a group is made from. */
export interface Mould {
  config: MachineConfig
  /** The volume name and size that each machine of the group has. */
  volume: { name: string; sizeGb: number | undefined } | undefined
}

/** CONF-5: what the command line makes of a volume whose size nothing says. */
const volumeSizeGb = 1

/** DEP-30: a machine of the group, or, when there is none, the definition last deployed. */
export async function mouldOf(
  api: Api,
  options: { app: string; group: string; machines: readonly Machine[]; volumes: readonly Volume[] },
): Promise<Mould> {
  const { app, group, machines, volumes } = options
  const model = machines.find(({ config }) => !config.standbys?.length) ?? machines[0]
  const config = model ? cloned(model.config) : await configFromRelease(api, app, group)
  const mount = config.mounts?.[0]
  if (!mount) return { config, volume: undefined }
  const now = volumes.find(({ id }) => id === mount.volume)
  const name = now?.name ?? mount.name
  if (!name) {
    throw new Fault(
      'not_found',
      `the volume ${mount.volume ?? ''} of group ${group} is gone, so its name is not known; deploy first`,
    )
  }
  // As large as the largest: one that was extended shows what its data needs.
  const sizes = volumes.filter((volume) => volume.name === name).map(({ size_gb }) => size_gb)
  const sizeGb = sizes.length > 0 ? Math.max(...sizes) : (mount.size_gb ?? undefined)
  return { config, volume: { name, sizeGb } }
}

function cloned(config: MachineConfig): MachineConfig {
  const { standbys: _standbys, ...rest } = structuredClone(config)
  const { FLY_STANDBY_FOR: _for, ...env } = rest.env ?? {}
  return { ...rest, ...(rest.env ? { env } : {}) }
}

async function configFromRelease(api: Api, app: string, group: string): Promise<MachineConfig> {
  const release = (await listReleases(api, app)).find(
    ({ status, image_ref }) => status === 'complete' && image_ref,
  )
  const definition = await api.find<object>(`/api/v1/apps/${part(app)}/definition`)
  const parsed = definition && parseDefinition(definition)
  if (!release?.image_ref || !parsed?.ok) {
    throw new Fault(
      'precondition_failed',
      `app ${app} has no machine in group ${group} and no complete release to make one from; run: hangar deploy -a ${app}`,
    )
  }
  return machineConfigFor(parsed.config, group, {
    image: release.image_ref,
    releaseId: release.id,
    releaseVersion: release.version,
    hangarVersion: 'hangar',
  })
}

/** Creates one machine in a region; with a volume, one that nobody uses, or a new one. VOL-9. */
export async function addMachine(
  api: Api,
  options: { app: string; region: string; mould: Mould; free: Volume[] },
): Promise<Machine> {
  const { app, region, mould, free } = options
  const config = structuredClone(mould.config)
  const mount = config.mounts?.[0]
  if (mount && mould.volume) {
    const { name, sizeGb } = mould.volume
    const at = free.findIndex((volume) => volume.name === name && volume.region === region)
    const [taken] = at < 0 ? [] : free.splice(at, 1)
    const volume =
      taken ??
      (await api.post<Volume>(`/v1/apps/${part(app)}/volumes`, {
        name,
        region,
        size_gb: sizeGb ?? volumeSizeGb,
      }))
    mount.volume = volume.id
  }
  return api.post<Machine>(`/v1/apps/${part(app)}/machines`, {
    config,
    region,
  } satisfies MachineInput)
}
