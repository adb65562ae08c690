import type { Hook } from './hook.ts'

/** VOL-8: the volume is there before the command starts. */
export const volumeHook: Hook = {
  name: 'volume',
  async prestart(launch) {
    for (const mount of launch.record.config.mounts ?? []) {
      if (!mount.volume) continue
      const source = await launch.agent.volumes.mount(mount.volume)
      launch.mounts.push({ source, path: mount.path })
    }
  },
  async poststop(agent, record) {
    for (const mount of record.config.mounts ?? []) {
      if (mount.volume) await agent.volumes.unmount(mount.volume)
    }
  },
}
