import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { Fault } from '#core/fault.ts'
import { readJsonFile, removeFile, writeFileAtomic } from '#sys/files.ts'

const loginSchema = z.object({
  /** The cloud that gave the token: it is sent to no other. */
  api: z.string(),
  token: z.string().min(1),
})
export type KeptLogin = z.infer<typeof loginSchema>

const fileOf = (home: string): string => join(home, 'login.json')

/** The token that `hangar auth login` got from this cloud. */
export function readLogin(home: string, api: string): KeptLogin | undefined {
  try {
    const kept = loginSchema.safeParse(readJsonFile(fileOf(home)))
    return kept.success && kept.data.api === api ? kept.data : undefined
  } catch (error) {
    // A home of somebody else: its login is not ours.
    if ((error as NodeJS.ErrnoException).code === 'EACCES') return undefined
    throw error
  }
}

/** Mode 0600. Fault `forbidden` where the folder is not ours to write to. */
export function keepLogin(home: string, login: KeptLogin): void {
  try {
    mkdirSync(home, { recursive: true })
    writeFileAtomic(fileOf(home), `${JSON.stringify(login)}\n`, 0o600)
  } catch (cause) {
    throw new Fault(
      'forbidden',
      `cannot keep the login in ${fileOf(home)}: ${(cause as Error).message}; name a folder of yours with --home or HANGAR_HOME, and the cloud with HANGAR_API`,
      { cause },
    )
  }
}

export function forgetLogin(home: string): void {
  removeFile(fileOf(home))
}
