import { parse, TomlError } from 'smol-toml'
import { z } from 'zod'
import { Fault, messageOf } from '#core/fault.ts'
import { cloudConfigSchema, type CloudConfig } from '#spec/settings.ts'
import { readTextFile } from '#sys/files.ts'
import type { Home } from './home.ts'
import type { Overrides } from './state.ts'

/** hangar.toml (or the file that `--config` named) with what the command line said on top. */
export function loadConfig(home: Home, overrides: Overrides): CloudConfig {
  const file = overrides.config_file ?? home.config
  const text = readTextFile(file)
  if (text === undefined && overrides.config_file) {
    throw new Fault('not_found', `there is no configuration file ${file}; see --config`)
  }
  const written = parseToml(file, text ?? '')
  const edge = (written['edge'] ?? {}) as Record<string, unknown>
  const { autostop_interval_ms: interval, config_file: _, ...rest } = overrides
  const merged = {
    ...written,
    ...rest,
    ...(interval === undefined ? {} : { edge: { ...edge, autostop_interval_ms: interval } }),
  }
  const parsed = cloudConfigSchema.safeParse(merged)
  if (parsed.success) return parsed.data
  throw new Fault('invalid', `${file} is not valid:\n${z.prettifyError(parsed.error)}`)
}

function parseToml(file: string, text: string): Record<string, unknown> {
  try {
    return parse(text)
  } catch (cause) {
    const where = cause instanceof TomlError ? `${file}:${cause.line}` : file
    throw new Fault('invalid', `${where}: ${messageOf(cause)}`, { cause })
  }
}
