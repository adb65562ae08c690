import { isFault, messageOf } from '#core/fault.ts'
import type { Agent } from '../agent.ts'
import type { MachineRecord } from '../store/index.ts'
import { filesHook } from './files.ts'
import type { Hook, Launch } from './hook.ts'
import { imageHook } from './image.ts'
import { networkHook } from './network.ts'
import { runtimeHook } from './runtime.ts'
import { secretsHook } from './secrets.ts'
import { volumeHook } from './volume.ts'

/** The parts of a start. Hooks of one stage run side by side; what they made is cleared up in the opposite order. */
const stages: readonly (readonly Hook[])[] = [
  [secretsHook],
  [imageHook, volumeHook, networkHook, filesHook],
  [runtimeHook],
]

/** Runs all hooks of a start. What an interrupted or failed one left is for `clearUp`. */
export async function prepareAndStart(
  agent: Agent,
  record: MachineRecord,
  { signal, keepRoot }: { signal: AbortSignal; keepRoot: boolean },
): Promise<Launch> {
  const launch: Launch = { agent, record, signal, keepRoot, mounts: [], files: [], secrets: {} }
  try {
    for (const stage of stages) {
      signal.throwIfAborted()
      const results = await Promise.allSettled(stage.map(async (hook) => hook.prestart?.(launch)))
      const failed = results.find((result) => result.status === 'rejected')
      if (failed) throw failed.reason
    }
  } finally {
    // Whoever clears up must not meet a network that is still being made.
    await Promise.allSettled([launch.netReady])
  }
  return launch
}

const triesMax = 5
const retryMs = 100

/**
 * Clears up behind a machine that no longer runs: its mounts, namespace and records of the runtime. Each hook is tried a
 * few times, and one that fails does not keep the others from their part.
 * @throws the last error when a hook never succeeded
 */
export async function clearUp(agent: Agent, record: MachineRecord): Promise<void> {
  let failure: unknown
  for (const stage of stages.toReversed()) {
    await Promise.all(
      stage.map(async (hook) => {
        for (let tries = 1; hook.poststop; tries++) {
          try {
            return await hook.poststop(agent, record)
          } catch (error) {
            agent.log.warn(
              { machine: record.id, hook: hook.name, error: messageOf(error) },
              'could not clear up behind a machine',
            )
            if (tries >= triesMax || agent.mode === 'closed' || isFault(error, 'not_found')) {
              failure = error
              return
            }
            await agent.clock.sleep(retryMs * 2 ** tries * (0.5 + agent.random()))
          }
        }
      }),
    )
  }
  if (failure !== undefined) throw failure
}
