import type { Clock } from '#core/clock.ts'
import type { MachineConfig } from '#spec/machine-config.ts'
import type { CheckStatus } from '#spec/machine.ts'
import { listenPort, planChecks, type PlannedCheck } from './check-plan.ts'
import { probe, probeTcp } from './probe.ts'

export interface HealthOptions {
  config: MachineConfig
  /** Where the machine is reached from its host. */
  address: string
  clock: Clock
  /** An adopted machine that was ready stays so until a probe says otherwise. */
  wasReady: boolean
  /** Called when readiness or the status of a check changed. */
  onChange: () => void
  /** A line for the machine's log. */
  warn: (message: string) => void
}

const probeFirstMs = 5
const listenTimeoutMs = 1_000
const listenWarnAfterMs = 10_000
const listenBoundMs = 60_000
const listenSlowMs = 5_000

/**
 * The pause before the next probe while none has passed: a tenth of the time already waited, so that watching for the
 * first success adds at most that much to a wake, and a machine that never answers costs little.
 */
function pauseBeforeFirst(waitedMs: number, mostMs: number): number {
  return Math.min(mostMs, Math.max(probeFirstMs, waitedMs / 10))
}

/** The health of one run of a machine: its checks, each in a loop of its own, from start to stop. */
export class Health {
  readonly #options: HealthOptions
  readonly #end = new AbortController()
  readonly #checks: { plan: PlannedCheck; status: CheckStatus }[]
  readonly #listenPort: number | undefined
  readonly #startedAt: number
  #listens: boolean

  constructor(options: HealthOptions) {
    this.#options = options
    this.#startedAt = options.clock.now()
    this.#listenPort = listenPort(options.config)
    this.#listens = this.#listenPort === undefined || options.wasReady
    this.#checks = planChecks(options.config).map((plan) => ({
      plan,
      status: {
        name: plan.name,
        status: options.wasReady ? 'passing' : 'critical',
        output: options.wasReady ? 'passed before the host was started again' : 'not checked yet',
        updated_at: new Date(this.#startedAt).toISOString(),
      },
    }))
    for (const check of this.#checks) void this.#watch(check)
    if (this.#listenPort !== undefined && !options.wasReady) void this.#listen(this.#listenPort)
  }

  /** Every gating check passes and the port of a machine without any accepts connections. */
  get ready(): boolean {
    return (
      this.#listens &&
      this.#checks.every(({ plan, status }) => !plan.gating || status.status === 'passing')
    )
  }

  /** CHK-6. */
  get statuses(): CheckStatus[] {
    return this.#checks.map((check) => check.status)
  }

  stop(): void {
    this.#end.abort()
  }

  async #pause(ms: number): Promise<void> {
    await this.#options.clock.sleep(ms, this.#end.signal).catch(() => {})
  }

  async #watch(check: { plan: PlannedCheck; status: CheckStatus }): Promise<void> {
    const { clock, address } = this.#options
    let passedOnce = this.#options.wasReady
    while (!this.#end.signal.aborted) {
      const result = await probe(address, check.plan)
      if (this.#end.signal.aborted) return
      const waited = clock.now() - this.#startedAt
      if (result.ok) passedOnce = true
      // CHK-5: a failure within the grace is no more than a warning, and success is never delayed by it.
      const inGrace = !passedOnce && waited < check.plan.graceMs
      this.#report(check, result.ok ? 'passing' : inGrace ? 'warning' : 'critical', result.output)
      const { intervalMs } = check.plan
      await this.#pause(passedOnce ? intervalMs : pauseBeforeFirst(waited, intervalMs))
    }
  }

  #report(check: { status: CheckStatus }, status: CheckStatus['status'], output: string): void {
    const before = check.status
    const changed = before.status !== status
    const updated_at = changed
      ? new Date(this.#options.clock.now()).toISOString()
      : before.updated_at
    check.status = { name: before.name, status, output, updated_at }
    if (changed) this.#options.onChange()
  }

  async #listen(port: number): Promise<void> {
    const { clock, address, warn } = this.#options
    let warned = false
    while (!this.#end.signal.aborted) {
      const result = await probeTcp(address, port, listenTimeoutMs)
      if (this.#end.signal.aborted) return
      if (result.ok) {
        this.#listens = true
        this.#options.onChange()
        return
      }
      const waited = clock.now() - this.#startedAt
      if (!warned && waited >= listenWarnAfterMs) {
        warned = true
        // LIM-1.
        warn(
          `nothing listens on 0.0.0.0:${port}: the machine gets no traffic. Make the app listen on 0.0.0.0:${port}, or set internal_port to the port that it uses`,
        )
      }
      await this.#pause(
        waited < listenBoundMs ? pauseBeforeFirst(waited, listenSlowMs) : listenSlowMs,
      )
    }
  }
}
