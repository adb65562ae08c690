import type { Router } from '../proxy/router.ts'
import type { Member, Pool } from '../proxy/routes.ts'
import type { Streams } from './stream.ts'

/** Requests in flight to a machine: those in HAProxy and those the waker carries. */
export function loadOf(member: Member, from: { router: Router; streams: Streams }): number {
  return from.router.sessions(member.row) + from.streams.sessions(member.row.id)
}

export const usableMembers = (pool: Pool | undefined): Member[] =>
  [...(pool?.members.values() ?? [])].filter((member) => member.usable)
