import type { MachineConfig, Mount } from '#spec/machine-config.ts'
import { belongsTo } from '#spec/flatten.ts'
import type { DeployJob } from './job.ts'
import type { DeployWorld } from './world.ts'

/** Finds a volume for each new machine that mounts one: an unattached one of that name, otherwise a new one. VOL-9. */
export class VolumePicker {
  private readonly taken = new Set<string>()
  private last: Promise<unknown> = Promise.resolve()
  private readonly world: DeployWorld
  private readonly job: DeployJob

  constructor(world: DeployWorld, job: DeployJob) {
    this.world = world
    this.job = job
  }

  /** The config with the ids of its volumes. One at a time, so that no two machines get the same volume. */
  async fill(config: MachineConfig, group: string, region: string): Promise<MachineConfig> {
    const mount = config.mounts?.[0]
    if (!mount || mount.volume) return config
    const picked = this.last.then(() => this.pick(mount, { group, region, guest: config.guest }))
    this.last = picked.catch(() => {})
    return { ...config, mounts: [{ ...mount, volume: await picked }] }
  }

  private async pick(
    mount: Mount,
    where: { group: string; region: string; guest: MachineConfig['guest'] },
  ): Promise<string> {
    const name = mount.name ?? ''
    const volumes = await this.world.listVolumes()
    const free = volumes.find(
      (volume) =>
        volume.name === name &&
        volume.region === where.region &&
        volume.state === 'created' &&
        volume.host_status === 'ok' &&
        !volume.attached_machine_id &&
        !this.taken.has(volume.id),
    )
    const id = free?.id ?? (await this.create(name, where))
    this.taken.add(id)
    return id
  }

  private async create(
    name: string,
    { group, region, guest }: { group: string; region: string; guest: MachineConfig['guest'] },
  ): Promise<string> {
    const section = this.job.config.mounts?.find(
      (mount) => mount.source === name && belongsTo(this.job.config, group, mount),
    )
    const size_gb = section?.initial_size ?? 1
    const volume = await this.world.createVolume({
      name,
      region,
      size_gb,
      compute: guest ?? undefined,
    })
    await this.world.say('info', `Created volume ${volume.id} (${name}, ${size_gb} GB, ${region})`)
    return volume.id
  }
}
