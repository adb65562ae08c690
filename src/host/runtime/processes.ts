import { readFileSync, readdirSync, readlinkSync } from 'node:fs'
import type { MachineProcess } from './driver.ts'

/** What /proc tells of the processes of a machine. A process that ends while it is read is left out. */

const ticksPerSecond = 100
const pageBytes = 4096
const descriptorsReadMax = 4096

interface Stat {
  pid: number
  userTicks: number
  systemTicks: number
  startTicks: number
  rssBytes: number
}

function readStat(pid: number): Stat | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
    const at = (index: number) => Number(fields[index])
    return {
      pid,
      userTicks: at(11),
      systemTicks: at(12),
      startTicks: at(19),
      rssBytes: at(21) * pageBytes,
    }
  } catch {
    return undefined
  }
}

/** Processes of the host with a path among their arguments: a runtime that nobody wrote down. */
export function processesNaming(path: string): number[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  return pids.map(Number).filter((pid) => {
    const words = quietly(() => readFileSync(`/proc/${pid}/cmdline`, 'utf8')) ?? ''
    return words.split('\0').includes(path)
  })
}

/** `0100007F:1F90` of /proc/net/tcp as `127.0.0.1:8080`; IPv6 in groups as `[::]:8080`. */
export function parseSocketAddress(text: string): string {
  const [address = '', port = ''] = text.split(':')
  const bytes: number[] = []
  // Each 32-bit word stands in the byte order of the machine: little-endian on all that we support.
  for (let word = 0; word < address.length; word += 8) {
    for (let byte = 6; byte >= 0; byte -= 2) {
      bytes.push(parseInt(address.slice(word + byte, word + byte + 2), 16))
    }
  }
  const number = parseInt(port, 16)
  if (bytes.length === 4) return `${bytes.join('.')}:${number}`
  const groups: string[] = []
  for (let i = 0; i < 16; i += 2) {
    groups.push((((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0)).toString(16))
  }
  const all = groups.join(':')
  const zeros = /(?:^|:)0(?::0)+(?=:|$)/.exec(all)
  if (!zeros) return `[${all}]:${number}`
  const head = all.slice(0, zeros.index)
  const tail = all.slice(zeros.index + zeros[0].length + 1)
  return `[${head}::${tail}]:${number}`
}

const listening = { tcp: '0A', tcp6: '0A', udp: '07', udp6: '07' } as const

/** Inode → socket, of every listening socket in the network namespace of a process. */
function listeningSockets(pid: number): Map<string, { proto: string; address: string }> {
  const sockets = new Map<string, { proto: string; address: string }>()
  for (const [table, state] of Object.entries(listening)) {
    const text = quietly(() => readFileSync(`/proc/${pid}/net/${table}`, 'utf8')) ?? ''
    for (const line of text.split('\n').slice(1)) {
      const fields = line.trim().split(/\s+/)
      const [local, status, inode] = [fields[1], fields[3], fields[9]]
      if (!local || status !== state || !inode) continue
      sockets.set(inode, { proto: table.replace('6', ''), address: parseSocketAddress(local) })
    }
  }
  return sockets
}

function quietly<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch {
    return undefined
  }
}

/** Inodes of the sockets that a process holds. */
function socketInodes(pid: number): string[] {
  const descriptors = quietly(() => readdirSync(`/proc/${pid}/fd`)) ?? []
  return descriptors.slice(0, descriptorsReadMax).flatMap((fd) => {
    const target = quietly(() => readlinkSync(`/proc/${pid}/fd/${fd}`))
    return /^socket:\[(\d+)\]$/.exec(target ?? '')?.[1] ?? []
  })
}

/** The process id as the machine itself sees it. */
function insidePid(pid: number): number {
  const status = quietly(() => readFileSync(`/proc/${pid}/status`, 'utf8')) ?? ''
  return Number(/^NSpid:.*\t(\d+)$/m.exec(status)?.[1] ?? pid)
}

/** The kernel tells both links from our own root, which is not the real one where we run in a chroot ourselves. */
function insideDirectory(pid: number): string {
  const root = readlinkSync(`/proc/${pid}/root`).replace(/\/$/, '')
  const directory = readlinkSync(`/proc/${pid}/cwd`)
  return directory.startsWith(root) ? directory.slice(root.length) || '/' : directory
}

/** `directory` is the path inside the machine, `stime` seconds of system time, `rtime` seconds since the start. */
export function describeProcesses(pids: readonly number[]): MachineProcess[] {
  const first = pids[0]
  if (first === undefined) return []
  const sockets = listeningSockets(first)
  const uptime = Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0])
  const found: MachineProcess[] = []
  for (const pid of pids) {
    const stat = readStat(pid)
    const words = quietly(() => readFileSync(`/proc/${pid}/cmdline`, 'utf8'))
    if (!stat || words === undefined) continue
    const seconds = Math.max(0, uptime - stat.startTicks / ticksPerSecond)
    const usedSeconds = (stat.userTicks + stat.systemTicks) / ticksPerSecond
    found.push({
      pid: insidePid(pid),
      stime: Math.floor(stat.systemTicks / ticksPerSecond),
      rtime: Math.floor(seconds),
      command: words.split('\0').join(' ').trim(),
      directory: quietly(() => insideDirectory(pid)) ?? '',
      cpu: seconds > 0 ? Math.round((100 * usedSeconds) / seconds) : 0,
      rss: stat.rssBytes,
      listen_sockets: socketInodes(pid).flatMap((inode) => sockets.get(inode) ?? []),
    })
  }
  return found.sort((a, b) => a.pid - b.pid)
}
