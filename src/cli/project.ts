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
  for (const warning of result.warnings) {
    complain(io, `${colorsOf(io).yellow('WARN')} ${warning}`)
  }
  return { folder: options.folder, file, config: result.config, definition: result.definition }
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
