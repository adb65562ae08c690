import { capabilitiesOf } from '../runtime-choice.ts'
import { volumeReady } from '../volume-attach.ts'
import type { Hook, Launch } from './hook.ts'

/** VOL-8: the volume is there before the command starts. VOL-1: it is this machine's, or the start fails. */
export const volumeHook: Hook = {
  name: 'volume',
  async prestart(launch) {
    for (const mount of launch.record.config.mounts ?? []) {
      if (!mount.volume) continue
      const want = { volume: mount.volume, signal: launch.signal }
      await volumeReady(launch.agent, launch.record, want)
      launch.mounts.push({ source: await bring(launch, mount.volume), path: mount.path })
    }
  },
  async poststop(agent, record) {
    for (const mount of record.config.mounts ?? []) {
      if (mount.volume) await agent.volumes.unmount(mount.volume)
    }
  },
}

/** The folder where the host mounted it, or its disk for a VM. */
async function bring({ agent, record }: Launch, volume: string): Promise<string> {
  if (capabilitiesOf(agent, record).volumes === 'folder') return agent.volumes.mount(volume)
  // Nothing runs before a start: what an earlier VM had is given back first, checked and grown.
  await agent.volumes.unmount(volume)
  return agent.volumes.attach(volume)
}
