import type { MachineRow } from '#spec/roster.ts'
import type { Member, Pool } from '../proxy/routes.ts'

/** What a request to a pool without a server has to wait for. Pure. */
export type Choice =
  | { do: 'wait' }
  | { do: 'start'; machine: MachineRow }
  | { do: 'refuse'; code: string; message: string }

/** A started machine that is not ready, or refuses connections, for this long no longer keeps another from being started. */
const unreadyMsMax = 10_000

const arriving = new Set(['starting', 'restarting', 'updating'])
const resting = new Set(['stopped', 'suspended', 'created'])
const going = new Set(['stopping', 'suspending'])

export interface ChooseOptions {
  now: number
  /** Machines that could not be started for this request. */
  failed: ReadonlySet<string>
  /** Milliseconds that a started machine has refused connections; undefined when it does not. */
  refusingMs: (member: Member) => number | undefined
  /** A host that says nothing: others are asked first. */
  silent: (host: string) => boolean
}

/** PRX-44 and PRX-45: one that is coming is waited for; else a resting one that may be started; else say why not. */
export function choose(pool: Pool, options: ChooseOptions): Choice {
  const { now, failed, refusingMs, silent } = options
  const members = [...pool.members.values()].sort((a, b) => (a.row.id < b.row.id ? -1 : 1))
  const candidates = members.filter(
    (member) => mayStart(member) && resting.has(member.row.state) && !failed.has(member.row.id),
  )
  const patient = candidates.every((member) => silent(member.row.host))
  const coming = members.some((member) => {
    if (member.usable) return patient || (refusingMs(member) ?? 0) < unreadyMsMax
    if (silent(member.row.host) && !patient) return false
    return isComing(member.row, now, patient)
  })
  if (coming) return { do: 'wait' }
  // A suspended machine is back soonest; among equals the one that rested longest.
  const [best] = candidates.sort(
    (a, b) =>
      Number(silent(a.row.host)) - Number(silent(b.row.host)) ||
      Number(b.row.state === 'suspended') - Number(a.row.state === 'suspended') ||
      a.row.changed_at - b.row.changed_at,
  )
  if (best) return { do: 'start', machine: best.row }
  if (members.some((member) => mayStart(member) && going.has(member.row.state))) {
    return { do: 'wait' }
  }
  return refusal(pool, members)
}

/** A resting machine to add to those that run, for a pool whose machines are all at their soft limits. */
export function chooseExtra(pool: Pool): MachineRow | undefined {
  const members = [...pool.members.values()]
  if (members.some(({ row }) => arriving.has(row.state) || row.returning)) return undefined
  return members
    .filter((member) => mayStart(member) && resting.has(member.row.state))
    .sort((a, b) => a.row.changed_at - b.row.changed_at)[0]?.row
}

function mayStart({ row, autostart }: Member): boolean {
  return autostart && row.startable && !row.cordoned
}

function isComing(row: MachineRow, now: number, patient: boolean): boolean {
  if (row.cordoned) return false
  if (row.returning || arriving.has(row.state)) return true
  if (row.state !== 'started') return false
  return patient || now - row.changed_at < unreadyMsMax
}

function refusal(pool: Pool, members: Member[]): Choice {
  const states = members.map(({ row, autostart }) => {
    const why = [
      row.state,
      row.cordoned ? 'cordoned' : '',
      autostart ? '' : 'auto_start_machines is false',
      row.startable ? '' : 'never started by the proxy',
    ]
    return `${row.id} (${why.filter(Boolean).join(', ')})`
  })
  return {
    do: 'refuse',
    code: 'PM08',
    message: `no machine of ${pool.app} can be started: ${states.join('; ')}. Start one with: hangar m start ID -a ${pool.app}, or bring up a new release with: hangar deploy`,
  }
}
