import type { MachineRow } from '#spec/roster.ts'
import type { MachineRecord } from './store/index.ts'

/** What the roster says of a machine. */
export function machineRow(
  record: MachineRecord,
  parts: { host: { id: string; api: string }; counter: number; ip6: string },
): MachineRow {
  const { config } = record
  return {
    v: 1,
    host: parts.host.id,
    counter: parts.counter,
    id: record.id,
    app: record.app.name,
    org: record.app.org,
    network: record.app.network,
    region: record.region,
    primary_region: config.env?.['PRIMARY_REGION'] ?? null,
    process_group: config.metadata?.['fly_process_group'] ?? null,
    instance_id: record.instanceId,
    state: record.life.state,
    ip4: record.ip4,
    ip6: parts.ip6,
    host_api: parts.host.api,
    services: config.services ?? [],
    ready: record.life.state === 'started' && record.ready,
    cordoned: record.cordoned,
    // PRX-45.
    startable: !config.schedule && !config.standbys?.length,
    returning: record.life.returning,
    changed_at: record.changedAt,
  }
}
