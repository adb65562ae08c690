import { wireDurationMs } from '#core/units.ts'
import type { Check, MachineConfig } from '#spec/machine-config.ts'

/** A health check as it is run: every default and bound applied. Times in milliseconds. */
export interface PlannedCheck {
  name: string
  type: 'tcp' | 'http'
  port: number
  /** Must pass for the machine to take traffic (CHK table, CHK-10). */
  gating: boolean
  intervalMs: number
  timeoutMs: number
  graceMs: number
  method: string
  path: string
  protocol: 'http' | 'https'
  tlsSkipVerify: boolean
  tlsServerName: string
  headers: { name: string; values: string[] }[]
}

const defaults = { intervalMs: 15_000, timeoutMs: 2_000, graceMs: 1_000 } as const
const bounds = { lowMs: 1_000, highMs: 60_000 } as const

const clamp = (ms: number) => Math.min(bounds.highMs, Math.max(bounds.lowMs, ms))
const duration = (value: string | number | null | undefined, fallback: number) =>
  value === null || value === undefined ? fallback : wireDurationMs(value)

function plan(check: Check, name: (type: string) => string, port: number, gating: boolean) {
  const type: 'tcp' | 'http' = check.type === 'http' ? 'http' : 'tcp'
  const graceMs = duration(check.grace_period, defaults.graceMs)
  return {
    name: name(type),
    type,
    port,
    gating,
    intervalMs: clamp(duration(check.interval, defaults.intervalMs)),
    timeoutMs: clamp(duration(check.timeout, defaults.timeoutMs)),
    graceMs: graceMs === 0 ? 0 : clamp(graceMs),
    method: (check.method || 'GET').toUpperCase(),
    path: check.path || '/',
    protocol: check.protocol === 'https' ? ('https' as const) : ('http' as const),
    tlsSkipVerify: check.tls_skip_verify === true,
    tlsServerName: check.tls_server_name ?? '',
    headers: check.headers ?? [],
  }
}

/** CHK-1, CHK-2, CHK-6: the checks of a config, service checks first, with their names. */
export function planChecks(config: MachineConfig): PlannedCheck[] {
  const planned: PlannedCheck[] = []
  for (const service of config.services ?? []) {
    for (const [i, check] of (service.checks ?? []).entries()) {
      const port = check.port ?? service.internal_port
      const number = String(i).padStart(2, '0')
      planned.push(plan(check, (type) => `servicecheck-${number}-${type}-${port}`, port, true))
    }
  }
  for (const [name, check] of Object.entries(config.checks ?? {})) {
    const port = check.port ?? config.services?.[0]?.internal_port
    if (port === undefined) continue
    planned.push(plan(check, () => name, port, check.kind === 'readiness'))
  }
  return planned
}

/**
 * The port that must accept a connection before traffic comes, for a machine with services of which no check says so;
 * undefined when none is needed.
 */
export function listenPort(config: MachineConfig): number | undefined {
  if (planChecks(config).some((check) => check.gating)) return undefined
  return config.services?.find((service) => service.protocol === 'tcp')?.internal_port
}
