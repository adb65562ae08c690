import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { readTextFile, removeFile } from '#sys/files.ts'
import { withFileLock } from '#sys/file-lock.ts'
import { homeAt, type Home } from './home.ts'
import { readState, type CloudState } from './state.ts'

// Forgotten at a reboot; every `up` writes its own line again.
const folder = '/run/hangar-clouds'

/**
 * Chooses with the other clouds of this machine in view, one chooser at a time: two that start together, or one that is
 * down at the moment, must not get the same ports and blocks.
 */
export async function chooseBesideNeighbours(
  home: Home,
  choose: (neighbours: CloudState[]) => Promise<CloudState>,
): Promise<CloudState> {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const lock = { file: join(folder, '.lock'), purpose: 'hangar up', waitMs: 30_000 }
  return await withFileLock(lock, async () => {
    const state = await choose(neighboursOf(home))
    writeFileSync(join(folder, state.cloud_id), home.dir)
    return state
  })
}

function neighboursOf(home: Home): CloudState[] {
  return readdirSync(folder)
    .filter((name) => name !== '.lock')
    .flatMap((name) => {
      const dir = readTextFile(join(folder, name))
      if (!dir || dir === home.dir) return []
      const state = stateIn(dir)
      if (!state) removeFile(join(folder, name))
      return state ? [state] : []
    })
}

/** A neighbour that was removed, or whose state cannot be read, claims nothing. */
function stateIn(dir: string): CloudState | undefined {
  try {
    return readState(homeAt(dir))
  } catch {
    return undefined
  }
}
