import type { MachineConfig } from '#spec/machine-config.ts'

const windowMs = 5 * 60_000
const retriesDefault = 10
const backoffFirstMs = 500
const backoffMostMs = 30_000

export interface Exit {
  exitCode: number
  signal?: number | undefined
  oomKilled: boolean
}

export interface RestartDecision {
  restart: boolean
  /** How long to wait before the restart. */
  delayMs: number
  /** Moments of the restarts within the window, this one included. */
  history: number[]
}

/**
 * MCH-75: whether a machine that ended by itself is started again. The first restart is immediate, each further one in
 * the window waits twice as long, with jitter. `random` is in [0, 1).
 */
export function decideRestart(
  config: Pick<MachineConfig, 'restart'>,
  exit: Exit,
  history: readonly number[],
  now: number,
  random: number,
): RestartDecision {
  const recent = history.filter((at) => at > now - windowMs)
  const policy = config.restart?.policy || 'on-failure'
  const failed = exit.exitCode !== 0 || exit.signal !== undefined || exit.oomKilled
  const rest = { restart: false, delayMs: 0, history: recent }
  if (policy === 'no' || policy === 'never') return rest
  if (policy !== 'always') {
    if (!failed) return rest
    if (recent.length >= (config.restart?.max_retries ?? retriesDefault)) return rest
  }
  const base =
    recent.length === 0 ? 0 : Math.min(backoffMostMs, backoffFirstMs * 2 ** (recent.length - 1))
  return {
    restart: true,
    delayMs: Math.round(base * (0.75 + random * 0.5)),
    history: [...recent, now].slice(-100),
  }
}
