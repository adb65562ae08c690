import { copyFileSync, readdirSync, statSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import type { Home } from './home.ts'

const logBytesMax = 32 * 1024 * 1024

/**
 * Keeps each log of a part, and of each edge's HAProxy, below its limit: what is there moves to `NAME.log.1`. Writers
 * append, so they go on below.
 */
export function trimLogs(home: Home, bytesMax = logBytesMax): void {
  const edges = home.data('edges')
  const folders = [home.data('log'), ...readdirSync(edges).map((id) => join(edges, id))]
  for (const file of folders.flatMap(logsIn)) {
    if (statSync(file).size <= bytesMax) continue
    copyFileSync(file, `${file}.1`)
    truncateSync(file)
  }
}

const logsIn = (dir: string): string[] =>
  readdirSync(dir)
    .filter((name) => name.endsWith('.log'))
    .map((name) => join(dir, name))
