import { renameSync, writeFileSync } from 'node:fs'
import { z } from 'zod'
import { readJsonFile } from '#sys/files.ts'
import type { Home } from './home.ts'

/** What the supervisor says of its parts, for whoever waits for it: `run/status.json`. Worth nothing after its death. */
const partReportSchema = z.object({
  state: z.enum(['waiting', 'starting', 'ready', 'down', 'failing']),
  pid: z.int().optional(),
  adopted: z.boolean().optional(),
  readyMs: z.number().optional(),
  failures: z.int(),
  message: z.string().optional(),
})
export type PartReport = z.infer<typeof partReportSchema>

const statusSchema = z.object({
  /** Of the supervisor that wrote it. */
  pid: z.int(),
  parts: z.record(z.string(), partReportSchema),
})
export type CloudStatus = z.infer<typeof statusSchema>

export function writeStatus(home: Home, status: CloudStatus): void {
  // Renamed, so that a reader never sees half of it; not synced, because it is stale after a crash anyway.
  writeFileSync(`${home.status}.new`, JSON.stringify(status))
  renameSync(`${home.status}.new`, home.status)
}

/** The status that the supervisor of this pid wrote, or undefined when it has not yet. */
export function readStatus(home: Home, pid: number): CloudStatus | undefined {
  const parsed = statusSchema.safeParse(readJsonFile(home.status))
  return parsed.success && parsed.data.pid === pid ? parsed.data : undefined
}
