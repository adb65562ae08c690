import type { Machine } from './machine.ts'

/**
 * A machine in a list that a host writes for control: what control must know of it, then the whole as JSON, which control
 * passes on as it is. One line each: no JSON has a raw tab or line feed in it.
 */
export interface MachineLine {
  id: string
  state: string
  region: string
  /** The same for as long as nothing that is worth remembering has changed. */
  mark: string
  json: Buffer
}

export const markOf = (machine: Machine): string =>
  `${machine.instance_id} ${machine.state} ${machine.updated_at} ${machine.cordoned}`

/** What stands before the JSON. */
export const machineLineHead = (machine: Machine): string =>
  `${machine.id}\t${machine.state}\t${machine.region}\t${markOf(machine)}\t`

export function parseMachineLine(line: Buffer): MachineLine {
  const start = line.indexOf(0x7b)
  const [id = '', state = '', region = '', mark = ''] = line.toString('utf8', 0, start).split('\t')
  return { id, state, region, mark, json: line.subarray(start) }
}
