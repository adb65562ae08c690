import { statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parse as parseToml } from 'smol-toml'
import { Fault, messageOf } from '#core/fault.ts'
import { readTextFile } from '#sys/files.ts'

/** TOML-1: the names looked for in a folder, in this order. */
const fileNames = ['fly.toml', 'fly.json'] as const

/** The configuration file that `-c` names, or that of the folder. Undefined when the folder has none. TOML-1. */
export function findConfigFile(folder: string, config: string | undefined): string | undefined {
  const wanted = config === undefined ? folder : resolve(folder, config)
  const kind = statSync(wanted, { throwIfNoEntry: false })
  if (kind?.isDirectory()) {
    const found = fileNames
      .map((name) => join(wanted, name))
      .find((path) => statSync(path, { throwIfNoEntry: false })?.isFile())
    if (found || config === undefined) return found
    throw new Fault('bad_request', `${wanted} has no fly.toml; name the file itself with -c`)
  }
  if (kind?.isFile()) return wanted
  if (config === undefined) return undefined
  throw new Fault('bad_request', `there is no configuration file at ${wanted}; check -c`)
}

/** TOML-2: `-a`, then FLY_APP, then `app` of the configuration file. */
export async function findAppName(options: {
  cwd: string
  flag: string | undefined
  config: string | undefined
  env: Record<string, string | undefined>
}): Promise<string | undefined> {
  if (options.flag) return options.flag
  const fromEnvironment = options.env['FLY_APP']
  if (fromEnvironment && options.config === undefined) return fromEnvironment
  const file = findConfigFile(options.cwd, options.config)
  return (file && appNameIn(file, readTextFile(file) ?? '')) || fromEnvironment
}

/** The `app` of a configuration file. Nothing else of it need be right. */
function appNameIn(file: string, text: string): string | undefined {
  try {
    const config = file.endsWith('.json') ? (JSON.parse(text) as object) : parseToml(text)
    const name = (config as { app?: unknown }).app
    return typeof name === 'string' && name !== '' ? name : undefined
  } catch (cause) {
    throw new Fault('bad_request', `cannot read ${file}: ${messageOf(cause)}`, { cause })
  }
}
