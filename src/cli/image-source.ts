import { statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { Fault } from '#core/fault.ts'
import type { FlagValues } from './command.ts'
import { findDockerfile } from './dockerfile.ts'
import type { Project } from './project.ts'

export type ImageSource =
  | { kind: 'image'; image: string }
  | { kind: 'dockerfile'; dockerfile: string; ignorefile: string | undefined }

/**
 * TOML-21: where the image comes from, in this order: `--image` or `build.image`; `build.dockerfile`; `--dockerfile`;
 * the Dockerfile of the folder. Paths of the configuration are relative to it. A Fault says what to do when there is none.
 */
export function imageSource(project: Project, flags: FlagValues, cwd: string): ImageSource {
  const build = project.config.build ?? {}
  const image = flags.text('image') ?? build.image
  if (image) return { kind: 'image', image }
  const base = project.file ? dirname(project.file) : project.folder
  const named = flags.text('dockerfile')
  const dockerfile = build.dockerfile
    ? existing(resolve(base, build.dockerfile), 'build.dockerfile')
    : named
      ? existing(resolve(cwd, named), '--dockerfile')
      : findDockerfile(project.folder)
  if (!dockerfile) throw noSource(project, build)
  const ignoreFlag = flags.text('ignorefile')
  const ignorefile = ignoreFlag
    ? resolve(cwd, ignoreFlag)
    : build.ignorefile && resolve(base, build.ignorefile)
  return { kind: 'dockerfile', dockerfile, ignorefile: ignorefile || undefined }
}

function existing(path: string, what: string): string {
  if (statSync(path, { throwIfNoEntry: false })?.isFile()) return path
  throw new Fault('bad_request', `the Dockerfile ${path} that ${what} names does not exist`)
}

function noSource(project: Project, build: NonNullable<Project['config']['build']>): Fault {
  const later = build.builder ? 'build.builder' : build.builtin ? 'build.builtin' : undefined
  const what = later
    ? `${later} is not available yet`
    : `there is no Dockerfile in ${project.folder}`
  return new Fault(
    'bad_request',
    `${what}; add a Dockerfile, name one with --dockerfile, or deploy a ready image with --image`,
  )
}
