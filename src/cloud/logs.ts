import { copyFileSync, readdirSync, statSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import type { Home } from './home.ts'

const logBytesMax = 32 * 1024 * 1024

/** Keeps each log of a part below its limit: what is there moves to `NAME.log.1`. Writers append, so they go on below. */
export function trimLogs(home: Home, bytesMax = logBytesMax): void {
  const dir = home.data('log')
  for (const name of readdirSync(dir)) {
    if (!name.endsWith('.log')) continue
    const file = join(dir, name)
    if (statSync(file).size <= bytesMax) continue
    copyFileSync(file, `${file}.1`)
    truncateSync(file)
  }
}
