import type { Clock } from '#core/clock.ts'
import type { ControlSettings } from '#spec/settings.ts'
import type { Logger } from '#sys/log.ts'
import type { ClientContacts } from './deploy/index.ts'
import type { HostDirectory } from './hosts/index.ts'
import type { Db, SecretBox } from './store/index.ts'

/** What every function of control works with: plain data and handles, made once by `runControl`. */
export interface ControlContext {
  db: Db
  settings: ControlSettings
  log: Logger
  clock: Clock
  /** The hosts we know and what they said last. */
  hosts: HostDirectory
  /** When the clients that drive deploys were heard last. */
  clients: ClientContacts
  /** The shared secret of the roles: the bearer for calls to hosts. */
  clusterKey: string
  secretBox: SecretBox
  /** Aborted when control stops: long waits and streams end. */
  stopping: AbortSignal
}
