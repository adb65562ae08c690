import type { Command } from '../command.ts'
import { apps } from './apps.ts'
import { config } from './config.ts'
import { deploy } from './deploy.ts'
import { env } from './env.ts'
import { launch } from './launch.ts'
import { logs } from './logs.ts'
import { machine } from './machine.ts'
import { platform, regions } from './regions.ts'
import { releases } from './releases.ts'
import { scale } from './scale.ts'
import { secrets } from './secrets.ts'
import { status } from './status.ts'
import { version } from './version.ts'
import { volumes } from './volumes.ts'

/** Every verb, in the order of the help. */
export const commands: readonly Command[] = [
  launch,
  deploy,
  status,
  logs,
  apps,
  machine,
  scale,
  secrets,
  releases,
  config,
  volumes,
  regions,
  platform,
  env,
  version,
]
