import { resolveGuest } from '#spec/guest-size.ts'
import type { MachineRecord } from './store/index.ts'

const pathDefault = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** MCH-67 and §2.13: image, then config, then secrets, then the platform's own names, the later winning. */
export function environmentOf(
  record: MachineRecord,
  parts: { imageEnv: readonly string[]; secrets: Record<string, string>; ip6: string },
): Record<string, string> {
  const env: Record<string, string> = { PATH: pathDefault }
  for (const entry of parts.imageEnv) {
    const at = entry.indexOf('=')
    if (at > 0) env[entry.slice(0, at)] = entry.slice(at + 1)
  }
  Object.assign(env, record.config.env, parts.secrets)
  const group = record.config.metadata?.['fly_process_group']
  return {
    ...env,
    ...(group && !record.config.env?.['FLY_PROCESS_GROUP'] ? { FLY_PROCESS_GROUP: group } : {}),
    FLY_APP_NAME: record.app.name,
    FLY_MACHINE_ID: record.id,
    FLY_ALLOC_ID: record.id,
    FLY_MACHINE_VERSION: record.instanceId,
    FLY_REGION: record.region,
    FLY_PRIVATE_IP: parts.ip6,
    FLY_IMAGE_REF: record.image.ref,
    FLY_VM_MEMORY_MB: String(resolveGuest(record.config).memory_mb),
  }
}
