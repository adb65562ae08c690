import type { Machine } from './machine.ts'

/**
 * A machine in a list that a host writes for control: what control must know of it, and where in the host's bytes its JSON
 * is, which control passes on as it is. Of ten thousand, an object more for each would be most of the work.
 */
export interface MachineLine {
  id: string
  state: string
  region: string
  /** The same for as long as nothing that is worth remembering has changed. */
  mark: string
  bytes: Buffer
  from: number
  to: number
}

export const markOf = (machine: Machine): string =>
  `${machine.instance_id} ${machine.state} ${machine.updated_at} ${machine.cordoned}`

/** A machine as it goes into a list: what stands in the list's head, without the length, and its JSON. */
export interface WrittenMachine {
  head: string
  json: string
}

export const machineHead = (machine: Machine): string =>
  `${machine.id}\t${machine.state}\t${machine.region}\t${markOf(machine)}`

/** The head has a line for each machine with the length of its JSON in bytes; all the JSON follows an empty line. */
export function writeMachineList(machines: readonly WrittenMachine[]): string {
  const heads = machines.map(({ head, json }) => `${head}\t${Buffer.byteLength(json)}\n`)
  return `${heads.join('')}\n${machines.map(({ json }) => json).join('')}`
}

export function readMachineList(bytes: Buffer): MachineLine[] {
  const headEnd = bytes.indexOf('\n\n')
  if (headEnd === -1) return []
  let from = headEnd + 2
  const heads = bytes.toString('utf8', 0, headEnd).split('\n')
  return heads.map((head) => {
    const [id = '', state = '', region = '', mark = '', length] = head.split('\t')
    const to = from + Number(length)
    const line = { id, state, region, mark, bytes, from, to }
    from = to
    return line
  })
}

/** What `known` machines of a host that is silent look like beside those of the others. */
export function machineLine(machine: Machine): MachineLine {
  const bytes = Buffer.from(JSON.stringify(machine))
  const { id, state, region } = machine
  return { id, state, region, mark: '', bytes, from: 0, to: bytes.length }
}

export const machineOf = ({ bytes, from, to }: MachineLine): Machine =>
  JSON.parse(bytes.toString('utf8', from, to)) as Machine

/** The JSON of a list of them. */
export function joinMachines(lines: readonly MachineLine[]): Buffer<ArrayBuffer> {
  const size = lines.reduce((sum, { from, to }) => sum + to - from + 1, 2)
  const list = Buffer.allocUnsafe(size)
  let at = list.write('[')
  for (const { bytes, from, to } of lines) {
    if (at > 1) at += list.write(',', at)
    at += bytes.copy(list, at, from, to)
  }
  at += list.write(']', at)
  return list.subarray(0, at)
}
