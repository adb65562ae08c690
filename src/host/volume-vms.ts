import type { DiskCounts, VolumeVms } from '#host/volume/index.ts'
import type { Agent } from './agent.ts'

/** A guest that hangs holds up nobody who looks at volumes. */
const usageTimeoutMs = 2_000

/** Lets the room of volumes ask the VM that has a disk. The agent is made after that room. */
export function volumeVms(
  agent: () => Pick<Agent, 'clock' | 'driver' | 'store' | 'volumes'>,
): VolumeVms {
  const machineOf = (volume: string) =>
    agent().store.volumes.find(volume)?.volume.attached_machine_id
  /** However many want to know, a guest is asked once at a time. */
  const asked = new Map<string, Promise<DiskCounts | undefined>>()

  async function ask(volume: string): Promise<DiskCounts | undefined> {
    const machine = machineOf(volume)
    const { driver, volumes } = agent()
    const said = machine && (await driver.usage?.(machine, volumes.imagePath(volume)))
    if (!said) return undefined
    const { blocks, blockBytes, blocksFree, blocksAvailable } = said
    return { blocks, bsize: blockBytes, bfree: blocksFree, bavail: blocksAvailable }
  }

  return {
    async still(volume, action) {
      const machine = machineOf(volume)
      const { driver } = agent()
      return machine && driver.still ? driver.still(machine, action) : action()
    },
    async grow(volume) {
      const machine = machineOf(volume)
      const { driver, volumes } = agent()
      if (!machine || (await driver.recover(machine)) !== 'running') return 'at start'
      const grown = await driver.grow?.(machine, volumes.imagePath(volume))
      return grown ? 'grown' : 'at resume'
    },
    usage(volume) {
      const asking = asked.get(volume) ?? ask(volume).finally(() => asked.delete(volume))
      asked.set(volume, asking)
      const { clock } = agent()
      return Promise.race([asking, clock.sleep(usageTimeoutMs).then(() => undefined)])
    },
  }
}
