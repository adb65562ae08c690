import { readFileSync } from 'node:fs'
import { flushCompileCache } from 'node:module'
import { z } from 'zod'
import { Fault, messageOf } from '#core/fault.ts'
import { controlSettingsSchema, edgeSettingsSchema, hostSettingsSchema } from '#spec/settings.ts'

export type Role = 'host' | 'edge' | 'control'

/** Runs one role with the settings in a JSON file; its errors end the process with a line that a person can read. */
export async function runRole(role: Role, flags: { settings?: string | undefined }): Promise<void> {
  try {
    // Node writes its cache when a process ends, but a role may be killed at any moment.
    setTimeout(flushCompileCache, 10_000).unref()
    if (!flags.settings) throw new Fault('bad_request', `hangar ${role} needs --settings FILE`)
    await roles[role](flags.settings)
  } catch (error) {
    process.stderr.write(`Error: ${error instanceof Fault ? error.message : text(error)}\n`)
    process.exit(1)
  }
}

const text = (error: unknown) => (error instanceof Error && error.stack) || messageOf(error)

const roles: Record<Role, (file: string) => Promise<unknown>> = {
  async host(file) {
    const settings = read(file, hostSettingsSchema)
    const { runHost } = await import('#host/index.ts')
    await runHost(settings)
  },
  async edge(file) {
    const settings = read(file, edgeSettingsSchema)
    const { runEdge } = await import('#edge/index.ts')
    await runEdge(settings)
  },
  async control(file) {
    const settings = read(file, controlSettingsSchema)
    const { runControl } = await import('#api/index.ts')
    await runControl(settings)
  },
}

function read<T>(file: string, schema: z.ZodType<T>): T {
  const parsed = schema.safeParse(JSON.parse(readFileSync(file, 'utf8')))
  if (parsed.success) return parsed.data
  throw new Fault('invalid', `${file} is not valid:\n${z.prettifyError(parsed.error)}`)
}
