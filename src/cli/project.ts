import { readFileSync, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { Fault, messageOf } from '#core/fault.ts'
import { inlineFiles, parseFlyToml, type FlyConfig } from '#spec/fly-toml.ts'
import { readTextFile } from '#sys/files.ts'
import { findConfigFile } from './app-config.ts'
import { colorsOf, complain, type Io } from './io.ts'

/** A folder with its configuration, read and found right. */
export interface Project {
  folder: string
  /** Where the configuration lies; undefined when there is none. */
  file: string | undefined
  config: FlyConfig
  /** As written, JSON. */
  definition: Record<string, unknown>
}

/** The folder a command works in: its argument, or where we are. */
export function folderOf(io: Io, argument: string | undefined): string {
  const folder = resolve(io.cwd, argument ?? '.')
  if (statSync(folder, { throwIfNoEntry: false })?.isDirectory()) return folder
  throw new Fault('bad_request', `${folder} is no folder; name the one that holds your app`)
}

/**
 * Reads and checks the configuration of a folder. Every error is named with file, line and key in one Fault; warnings go
 * to stderr once. TOML-8.
 */
export function openProject(
  io: Io,
  options: { folder: string; config: string | undefined },
): Project {
  const file = findConfigFile(options.folder, options.config)
  if (file === undefined) {
    return { folder: options.folder, file, config: {} as FlyConfig, definition: {} }
  }
  const result = parseFlyToml(readTextFile(file) ?? '', { file })
  if (!result.ok) {
    const lines = result.errors.map(({ message }) => `  ${message}`).join('\n')
    throw new Fault('invalid', `the configuration is not valid; nothing was changed:\n${lines}`)
  }
  warnOf(io, file, result)
  return { folder: options.folder, file, config: result.config, definition: result.definition }
}

/**
 * What is accepted and yet may not be what was meant, to stderr. A key that nobody knows passes (TOML-4), but a section
 * misspelt would otherwise be an app that nothing reaches, and nobody told.
 */
export function warnOf(
  io: Io,
  file: string,
  found: { warnings: readonly string[]; unknownKeys: readonly { key: string; line?: number }[] },
): void {
  const unknown = found.unknownKeys.map(
    ({ key, line }) => `${file}:${line ? `${line}:` : ''} ${key} is no known key; it is ignored`,
  )
  for (const warning of [...found.warnings, ...unknown]) {
    complain(io, `${colorsOf(io).yellow('WARN')} ${warning}`)
  }
}

/** TOML-35: the definition with the content of every `local_path`, read relative to the configuration file. */
export function withLocalFiles(project: Project): Record<string, unknown> {
  const base = project.file ? dirname(project.file) : project.folder
  return inlineFiles(project.definition, (localPath) => {
    const path = resolve(base, localPath)
    try {
      return readFileSync(path).toString('base64')
    } catch (cause) {
      throw new Fault(
        'bad_request',
        `files.local_path "${localPath}" cannot be read: ${messageOf(cause)}`,
        { cause },
      )
    }
  })
}
