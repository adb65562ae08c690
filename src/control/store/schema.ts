import type { ColumnType, Generated, JSONColumnType } from 'kysely'
import type { DeployInput, DeployProgress, Release } from '#spec/release.ts'
import type { LoginMetadata } from '#spec/login.ts'
import type { HostRow } from '#spec/roster.ts'
import type { Machine } from '#spec/machine.ts'
import type { Volume } from '#spec/volume.ts'

/** The tables of control. A column `number` is the numeric id that old clients want beside the text one. */
export interface Database {
  orgs: OrgTable
  networks: NetworkTable
  tokens: TokenTable
  cli_sessions: CliSessionTable
  apps: AppTable
  secrets: SecretTable
  secret_pushes: SecretPushTable
  hosts: HostTable
  machine_placements: MachinePlacementTable
  volume_placements: VolumePlacementTable
  releases: ReleaseTable
  release_progress: ReleaseProgressTable
  release_runs: ReleaseRunTable
  builds: BuildTable
  ip_assignments: IpAssignmentTable
  certificates: CertificateTable
  client_builds: ClientBuildTable
}

type Timestamp = ColumnType<Date, Date | undefined, Date>
type NullableJson<T extends object> = ColumnType<T | null, string | null | undefined, string | null>

interface OrgTable {
  id: string
  number: Generated<number>
  slug: string
  name: string
  created_at: Timestamp
}

/** NET-1: a /48 of its own each; the number starts at 1 and is never given twice. */
interface NetworkTable {
  number: Generated<number>
  org_id: string
  name: string
  created_at: Timestamp
}

/**
 * What a token may do. `admin`: everything in every org; `org`: everything in one; `deploy`: one app; `readonly`: looks at
 * one org, or at one app of it; `identity`: says who it is and nothing else. §8.1.
 */
export interface TokenScope {
  profile: 'admin' | 'org' | 'deploy' | 'readonly' | 'identity'
  org_id?: string
  app_id?: string
}

interface TokenTable {
  id: string
  name: string
  /** SHA-256 of the secret: the secret itself is shown once and never kept. */
  hash: Buffer
  email: string
  scope: JSONColumnType<TokenScope>
  created_at: Timestamp
  expires_at: Date
  revoked_at: Date | null
  /** The token that made it; null for the operator's first one. */
  made_by: string | null
}

/** A login that waits for a person, or for its program to fetch the token that the person allowed. */
interface CliSessionTable {
  id_hash: Buffer
  /** What asks: the name of a computer. */
  name: string
  target: string
  metadata: JSONColumnType<LoginMetadata>
  /** PKCE, S256; null for old clients, which poll. */
  challenge: string | null
  state: string
  redirect_port: number | null
  /** Of the connection that started it. */
  address: ColumnType<string, string | undefined, never>
  /** Wrong tokens, codes and verifiers so far. */
  failures: Generated<number>
  /** Once a person has allowed it: the hash of the code, whose token allowed it, and what the new one may do. */
  code_hash: Buffer | null
  approved_by: string | null
  scope: NullableJson<TokenScope>
  created_at: Date
  expires_at: Date
}

interface AppTable {
  id: string
  number: Generated<number>
  name: string
  org_id: string
  network: number
  status: ColumnType<
    'pending' | 'deployed' | 'suspended',
    'pending' | undefined,
    'deployed' | 'suspended'
  >
  /** `''` for an ordinary app, otherwise what clients made it for: `remote-docker-builder` … */
  role: ColumnType<string, string | undefined, never>
  /** Grows by one with each change of any secret (SEC-4). */
  secrets_version: Generated<number>
  created_at: Timestamp
  /** Since when it is being deleted; from then on nothing is made in it. */
  deleting_at: ColumnType<Date | null, never, Date>
  /** When its deletion was done, which frees its name. */
  deleted_at: Date | null
}

interface SecretTable {
  app_id: string
  name: string
  sealed: Buffer
  digest: string
  created_at: Timestamp
  updated_at: Timestamp
}

/** The newest version of an app's secrets that a host is known to hold. */
interface SecretPushTable {
  app_id: string
  host_id: string
  version: number
}

interface HostTable {
  id: string
  row: JSONColumnType<HostRow, HostRow | string, HostRow | string>
  first_seen_at: Timestamp
  last_seen_at: Timestamp
}

/**
 * `placing`: recorded, the host may or may not have made it yet. `doomed`: its maker was told that it failed, or its app is
 * deleted, so it is destroyed as soon as its host answers. `gone`: destroyed, or never made.
 */
export type PlacementStatus = 'placing' | 'placed' | 'doomed' | 'gone'

/** `leaving`: destroyed by its user; its host keeps it for a while (VOL-11), and its snapshots for longer (VOL-14). */
export type VolumeStatus = PlacementStatus | 'leaving'

interface MachinePlacementTable {
  machine_id: string
  app_id: string
  name: string
  region: string
  host_id: string
  host_api: string
  status: PlacementStatus
  /** The process that is placing it, so that what a dead one left behind is found. */
  placed_by: string
  /** The host's last answer, shown while the host cannot be reached (MCH-81). */
  last_known: NullableJson<Machine>
  /** Only of one that is `gone`: what is read of it is kept for a while after that. */
  gone_at: ColumnType<Date | null, Date | null | undefined, Date>
  created_at: Timestamp
}

interface VolumePlacementTable {
  volume_id: string
  app_id: string
  name: string
  region: string
  size_gb: number
  host_id: string
  host_api: string
  status: VolumeStatus
  /** The process that is placing it, so that what a dead one left behind is found. */
  placed_by: string
  last_known: NullableJson<Volume>
  /** Only of one that is `leaving`. */
  destroyed_at: Date | null
  /** Only of one that is `gone`. */
  gone_at: ColumnType<Date | null, Date | null | undefined, Date>
  created_at: Timestamp
}

interface ReleaseTable {
  id: string
  app_id: string
  version: number
  status: Release['status']
  driver: Release['driver']
  strategy: string
  description: string
  reason: string
  image_ref: string | null
  user: string
  /** Whose token began it. */
  token_id: ColumnType<string | null, string | undefined, never>
  definition: NullableJson<Record<string, unknown>>
  /** What the deploy was asked to do: enough to go on with it after a restart. */
  input: NullableJson<DeployInput>
  created_at: Timestamp
  updated_at: Timestamp
}

/** Only server releases that are not over have one. */
interface ReleaseRunTable {
  release_id: string
  /** `host:pid:start` of the control process that drives it. */
  runner: string
  seen_at: Timestamp
  step: JSONColumnType<Record<string, unknown>>
}

interface ReleaseProgressTable {
  release_id: string
  seq: number
  at: Timestamp
  level: DeployProgress['level']
  message: string
  machine: string | null
  status: Release['status'] | null
}

export type BuildStatus = 'waiting' | 'running' | 'complete' | 'failed' | 'cancelled'

interface BuildTable {
  id: string
  app_id: string
  status: BuildStatus
  /** The process that runs it. */
  runner: string
  image_ref: string | null
  digest: string | null
  size: number | null
  error: string | null
  created_at: Timestamp
  finished_at: Date | null
}

export type IpType = 'v4' | 'v6' | 'shared_v4' | 'private_v6'

/** An address that an app has been given, by name only: what makes it reachable belongs to the edge. */
interface IpAssignmentTable {
  id: string
  number: Generated<number>
  app_id: string
  type: IpType
  address: string
  region: string
  service_name: string
  created_at: Timestamp
}

interface CertificateTable {
  app_id: string
  hostname: string
  created_at: Timestamp
  updated_at: Timestamp
}

/** A build that a client runs on its own and reports here. */
interface ClientBuildTable {
  number: Generated<number>
  app_id: string
  builder_type: string
  status: string
  created_at: Timestamp
  finished_at: Date | null
}
