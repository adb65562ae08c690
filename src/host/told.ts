import { messageOf } from '#core/fault.ts'
import type { Agent } from './agent.ts'

/**
 * The words of an error for a user: in an answer, an event, a machine's log. They name a volume, a snapshot or a machine where
 * the error names a file of theirs; where that is on this host is for the host's log alone, which has it from here.
 */
export function told(agent: Pick<Agent, 'dirs' | 'log'>, error: unknown): string {
  const whole = messageOf(error)
  const text = named(agent.dirs, whole)
  const whys = causesOf(error)
  const hidden = text !== whole || whys.some((why) => named(agent.dirs, why) !== why)
  if (hidden) agent.log.warn({ error: whole, whys, told: text }, 'a user was told of an error')
  return text
}

function causesOf(error: unknown): string[] {
  const whys: string[] = []
  for (let at = error; at instanceof Error && at.cause instanceof Error; at = at.cause) {
    whys.push(at.cause.message)
  }
  return whys
}

function named(dirs: readonly string[], text: string): string {
  return dirs.reduce((said, dir) => {
    const escaped = dir.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')
    return said.replaceAll(new RegExp(`${escaped}((?:/[\\w.@+-]+)*)/?`, 'g'), (_, rest: string) =>
      nameOf(rest.split('/').slice(1)),
    )
  }, text)
}

/** What lies below a host's folder, by its path there. */
function nameOf([room = '', ...path]: string[]): string {
  if (room === 'volumes' && path[0]) return `volume ${path[0].replace(/\.gone$/, '')}`
  if (room === 'snapshots' && path[0]) return `snapshot ${path[0].replace(/\.gone$/, '')}`
  if (path[0] === 'machines' && path[1]) return `machine ${path[1]}`
  return room === 'images' || path[0] === 'images' ? "the image's file" : 'a file of the host'
}
