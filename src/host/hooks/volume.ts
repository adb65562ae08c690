import { volumeReady } from '../volume-attach.ts'
import type { Hook } from './hook.ts'

/** VOL-8: the volume is there before the command starts. VOL-1: it is this machine's, or the start fails. */
export const volumeHook: Hook = {
  name: 'volume',
  async prestart(launch) {
    for (const mount of launch.record.config.mounts ?? []) {
      if (!mount.volume) continue
      const want = { volume: mount.volume, signal: launch.signal }
      await volumeReady(launch.agent, launch.record, want)
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
