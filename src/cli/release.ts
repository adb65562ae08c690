import { isFault, Fault } from '#core/fault.ts'
import { systemClock } from '#core/clock.ts'
import type { DeployProgress, Release } from '#spec/release.ts'
import { part, type Api } from './api.ts'
import { withJitter } from './jitter.ts'
import { colorsOf, complain, say, type Io } from './io.ts'

const retryMs = { first: 250, most: 5_000 }
/** How often a broken connection is taken up again without a new line before we give up. */
const retriesMax = 30

/**
 * Prints the progress of a release until it is over; a broken connection is taken up again at the line where it broke.
 * Resolves with true when the release is complete. The release runs in the cloud: ending this command does not end it.
 */
export async function followRelease(
  io: Io,
  options: { api: Api; app: string; release: Release },
): Promise<boolean> {
  const { api, app, release } = options
  const path = `/api/v1/apps/${part(app)}/releases/${part(release.id)}/progress?follow=true`
  let seen = -1
  let retries = 0
  for (;;) {
    try {
      for await (const line of api.lines<DeployProgress>(path)) {
        if (line.seq <= seen) continue
        seen = line.seq
        retries = 0
        showProgress(io, line)
        if (line.status) return verdict(io, { app, release, last: line })
      }
    } catch (error) {
      if (io.signal.aborted) tellItGoesOn(io, app)
      const transient = isFault(error) && error.whose === 'system'
      if (io.signal.aborted || !transient || retries >= retriesMax) throw error
    }
    if (retries++ >= retriesMax) {
      throw new Fault(
        'host_unreachable',
        `lost sight of release v${release.version} of ${app}; it goes on in the cloud, see: hangar releases -a ${app}`,
      )
    }
    const waitMs = Math.min(retryMs.first * 2 ** retries, retryMs.most)
    await systemClock.sleep(withJitter(waitMs), io.signal)
  }
}

function showProgress(io: Io, { level, message }: DeployProgress): void {
  const colors = colorsOf(io)
  if (level === 'error') complain(io, colors.red(`✖ ${message}`))
  else if (level === 'warn') complain(io, `${colors.yellow('WARN')} ${message}`)
  else if (level === 'log') say(io, colors.dim(`  ${message}`))
  else say(io, message)
}

function verdict(
  io: Io,
  { app, release, last }: { app: string; release: Release; last: DeployProgress },
): boolean {
  if (last.status === 'complete') return true
  const why = last.status === 'interrupted' ? 'was interrupted' : 'failed'
  complain(
    io,
    `${colorsOf(io).red('Error:')} release v${release.version} of ${app} ${why}; see: hangar status -a ${app} and hangar logs -a ${app}`,
  )
  return false
}

function tellItGoesOn(io: Io, app: string): void {
  complain(io, `The release goes on in the cloud; see: hangar releases -a ${app}`)
}
