import { Fault } from '#core/fault.ts'

/** What a machine is to run, in full. What is not given is left as it is; a container needs little of it. */
export interface GuestRun {
  argv: string[]
  env: Record<string, string>
  /** `name|uid[:group|gid]`, resolved in the image; empty is root. */
  user: string
  /** Made when the image lacks it; empty is `/`. */
  workdir: string
  hostname?: string
  /** The whole of /etc/hosts. */
  hosts?: string
  /** The whole of /etc/resolv.conf. */
  resolvConf?: string
  files?: GuestFile[]
  /** A terminal for the main process: its output is then all standard output. */
  tty?: TerminalSize
  rlimits?: { resource: number; soft: bigint; hard: bigint }[]
  vm?: GuestVm
}

/** What only a VM is told: disks, network, time. */
export interface GuestVm {
  /** squashfs; default /dev/vda. */
  rootDevice?: string
  /** ext4 for what the machine writes; without one it is written to memory. */
  upperDevice?: string
  /** ext4 volumes. */
  volumes: { device: string; path: string }[]
  /** `address` with its prefix length, e.g. `fdaa::2/112`. */
  addresses: { device: string; address: string }[]
  /** `to` a prefix; without `via` it is on the link. Set in this order. */
  routes: { device: string; to: string; via?: string }[]
  mtu?: number
  /** e.g. `net.ipv4.ip_unprivileged_port_start`: `0` */
  sysctls: Record<string, string>
  swapMb?: number
  /** Milliseconds since 1970. */
  nowMs: number
  /** Random bytes, at most 1,024. */
  entropy: Buffer
}

export interface GuestFile {
  path: string
  content: Buffer
  mode: number
  uid?: number
  gid?: number
}

export interface TerminalSize {
  rows: number
  columns: number
}

export const streamKinds = {
  program: 0,
  copyIn: 1,
  copyOut: 2,
  ps: 3,
  metrics: 4,
  grow: 5,
  sync: 6,
} as const

export interface GuestOpen {
  kind: keyof typeof streamKinds
  argv?: string[]
  /** Added to the machine's own environment. */
  env?: Record<string, string>
  /** Empty is root. */
  user?: string
  /** Default: the machine's. */
  workdir?: string
  tty?: TerminalSize
  timeoutMs?: number
  path?: string
  mode?: number
  /** Bytes of output that are taken before more credit is given. */
  credit: number
}

/** guest/spec.c has the same numbers. */
const tags = {
  argv: 1,
  env: 2,
  user: 3,
  workdir: 4,
  hostname: 5,
  hosts: 6,
  resolvConf: 7,
  file: 8,
  volume: 9,
  address: 10,
  route: 11,
  tty: 12,
  rlimit: 13,
  swapMb: 14,
  rootDevice: 15,
  upperDevice: 16,
  mtu: 17,
  sysctl: 18,
  timeNs: 19,
  entropy: 20,
  timeoutMs: 21,
  kind: 22,
  path: 23,
  mode: 24,
  credit: 25,
} as const

type Tag = keyof typeof tags

/** Fields of tag, length, bytes; the guest reads them without a parser that could be led astray. */
class FieldWriter {
  readonly #parts: Buffer[] = []

  bytes(tag: Tag, data: Buffer): void {
    const head = Buffer.allocUnsafe(6)
    head.writeUInt16LE(tags[tag], 0)
    head.writeUInt32LE(data.length, 2)
    this.#parts.push(head, data)
  }

  text(tag: Tag, text: string | undefined): void {
    if (text === undefined) return
    if (text.includes('\0')) {
      throw new Fault(
        'invalid',
        `the machine's ${tag} has a zero byte in it, which no program can be given`,
      )
    }
    this.bytes(tag, Buffer.from(text, 'utf8'))
  }

  number(tag: Tag, value: number | undefined): void {
    if (value !== undefined) this.bytes(tag, uint32(value))
  }

  done(): Buffer {
    return Buffer.concat(this.#parts)
  }
}

export function uint32(...values: number[]): Buffer {
  const data = Buffer.allocUnsafe(4 * values.length)
  values.forEach((value, i) => data.writeUInt32LE(value, 4 * i))
  return data
}

export function uint64(...values: bigint[]): Buffer {
  const data = Buffer.allocUnsafe(8 * values.length)
  values.forEach((value, i) => data.writeBigUInt64LE(value, 8 * i))
  return data
}

export function terminalSize(size: TerminalSize): Buffer {
  const data = Buffer.allocUnsafe(4)
  data.writeUInt16LE(size.rows, 0)
  data.writeUInt16LE(size.columns, 2)
  return data
}

function writeCommand(out: FieldWriter, given: { argv?: string[]; env?: Record<string, string> }) {
  for (const word of given.argv ?? []) out.text('argv', word)
  for (const [name, value] of Object.entries(given.env ?? {})) out.text('env', `${name}=${value}`)
}

function writeFile(out: FieldWriter, file: GuestFile): void {
  if (file.path.includes('\0')) {
    throw new Fault('invalid', `the file path ${JSON.stringify(file.path)} has a zero byte in it`)
  }
  const path = Buffer.from(file.path, 'utf8')
  if (path.length > 4095)
    throw new Fault('invalid', `a file path of ${path.length} bytes is too long`)
  const head = Buffer.concat([uint32(file.mode, file.uid ?? 0, file.gid ?? 0), Buffer.alloc(2)])
  head.writeUInt16LE(path.length, 12)
  out.bytes('file', Buffer.concat([head, path, Buffer.alloc(1), file.content]))
}

function writeVm(out: FieldWriter, vm: GuestVm): void {
  out.text('rootDevice', vm.rootDevice)
  out.text('upperDevice', vm.upperDevice)
  for (const { device, path } of vm.volumes) out.text('volume', `${device} ${path}`)
  for (const { device, address } of vm.addresses) out.text('address', `${device} ${address}`)
  for (const { device, to, via } of vm.routes) out.text('route', `${device} ${to} ${via ?? '-'}`)
  out.number('mtu', vm.mtu)
  for (const [name, value] of Object.entries(vm.sysctls)) out.text('sysctl', `${name}=${value}`)
  out.number('swapMb', vm.swapMb)
  out.bytes('timeNs', uint64(BigInt(vm.nowMs) * 1_000_000n))
  out.bytes('entropy', vm.entropy)
}

export function encodeRun(run: GuestRun): Buffer {
  const out = new FieldWriter()
  writeCommand(out, run)
  out.text('user', run.user)
  out.text('workdir', run.workdir)
  out.text('hostname', run.hostname)
  out.text('hosts', run.hosts)
  out.text('resolvConf', run.resolvConf)
  for (const file of run.files ?? []) writeFile(out, file)
  if (run.tty) out.bytes('tty', terminalSize(run.tty))
  for (const limit of run.rlimits ?? []) {
    out.bytes('rlimit', Buffer.concat([uint32(limit.resource), uint64(limit.soft, limit.hard)]))
  }
  if (run.vm) writeVm(out, run.vm)
  return out.done()
}

export function encodeOpen(open: GuestOpen): Buffer {
  const out = new FieldWriter()
  out.number('kind', streamKinds[open.kind])
  writeCommand(out, open)
  out.text('user', open.user)
  out.text('workdir', open.workdir)
  if (open.tty) out.bytes('tty', terminalSize(open.tty))
  out.number('timeoutMs', open.timeoutMs)
  out.text('path', open.path)
  out.number('mode', open.mode)
  out.number('credit', open.credit)
  return out.done()
}

/** The guest's first word, in answer to HELLO. */
export interface Welcome {
  version: number
  generation: bigint
  /** Of this boot of the machine: another one means that all state is gone. */
  bootId: string
  state: 'waiting' | 'running' | 'ending' | 'ended'
  /** 0 before it runs. */
  pid: number
  output: { acked: bigint; end: bigint; lost: bigint }
}

export interface GuestExit {
  /** 128 + signal when a signal ended the process. */
  exitCode: number
  signal?: number
  oomKilled: boolean
  /** Milliseconds since the epoch, by the guest's clock. */
  at: number
  /** Bytes of output that nobody took in time. */
  outputLost: bigint
}

export interface GuestOutput {
  stream: 'stdout' | 'stderr'
  data: Buffer
  /** Milliseconds since the epoch, by the guest's clock. */
  at: number
  /** Of the first byte, in all output since the start. */
  offset: bigint
}

const states = ['waiting', 'running', 'ending', 'ended'] as const

/** Each decoder returns undefined for what is not of its shape: a guest may send anything. */
export function decodeWelcome(data: Buffer): Welcome | undefined {
  const state = states[data[26] ?? 255]
  if (data.length < 55 || state === undefined) return undefined
  return {
    version: data.readUInt16LE(0),
    generation: data.readBigUInt64LE(2),
    bootId: data.toString('hex', 10, 26),
    state,
    pid: data.readUInt32LE(27),
    output: {
      acked: data.readBigUInt64LE(31),
      end: data.readBigUInt64LE(39),
      lost: data.readBigUInt64LE(47),
    },
  }
}

export function decodeExit(data: Buffer): GuestExit | undefined {
  if (data.length < 25) return undefined
  const signal = data.readUInt32LE(4)
  return {
    exitCode: data.readUInt32LE(0) & 0xff,
    ...(signal > 0 && signal < 65 ? { signal } : {}),
    oomKilled: data.readUInt8(8) !== 0,
    at: Number(data.readBigUInt64LE(9)),
    outputLost: data.readBigUInt64LE(17),
  }
}

export function decodeOutput(data: Buffer): GuestOutput | undefined {
  if (data.length < 17) return undefined
  return {
    offset: data.readBigUInt64LE(0),
    at: Number(data.readBigUInt64LE(8)),
    stream: data.readUInt8(16) === 2 ? 'stderr' : 'stdout',
    data: data.subarray(17),
  }
}

/** The end of a stream; `words` say why it never began. */
export interface StreamExit {
  exitCode: number
  signal: number
  timedOut: boolean
  words: string
}

export function decodeStreamExit(data: Buffer): StreamExit | undefined {
  if (data.length < 9) return undefined
  return {
    exitCode: data.readUInt32LE(0) & 0xff,
    signal: data.readUInt32LE(4) & 0x7f,
    timedOut: data.readUInt8(8) !== 0,
    words: data.toString('utf8', 9),
  }
}
