/** Reading HAProxy back: `show stat` and `show map`. */

/** One run-time server as HAProxy has it now. */
export interface ServerStat {
  slot: string
  server: string
  status: 'up' | 'down' | 'drain' | 'maint'
  address: string
  weight: number
  /** Requests in flight. */
  sessions: number
  queued: number
  /** Requests since the server was added. */
  requests: number
  /** 0: no limit. */
  maxconn: number
}

export interface PoolStat {
  /** Slot → requests that wait for any server of it. */
  queued: Map<string, number>
  /** Slot → requests in it, those at the waker counted. */
  inFlight: Map<string, number>
  servers: ServerStat[]
}

/** Parses the CSV of `show stat`; lines it does not understand are left out. */
export function parseStat(...texts: string[]): PoolStat {
  const pool: PoolStat = { queued: new Map(), inFlight: new Map(), servers: [] }
  for (const text of texts) {
    const lines = text.split('\n')
    const head = lines[0]?.replace(/^# /, '').split(',') ?? []
    const column = (name: string) => head.indexOf(name)
    const at = {
      slot: column('pxname'),
      server: column('svname'),
      queued: column('qcur'),
      sessions: column('scur'),
      maxconn: column('slim'),
      requests: column('stot'),
      status: column('status'),
      weight: column('uweight'),
      address: column('addr'),
    }
    for (const line of lines.slice(1)) {
      if (line === '') continue
      const cells = splitCsv(line)
      const cell = (index: number) => cells[index] ?? ''
      const slot = cell(at.slot)
      const server = cell(at.server)
      if (server === 'BACKEND') {
        pool.queued.set(slot, Number(cell(at.queued)))
        pool.inFlight.set(slot, Number(cell(at.sessions)))
      }
      if (server === 'BACKEND' || server === 'FRONTEND' || slot === '') continue
      pool.servers.push({
        slot,
        server,
        status: statusOf(cell(at.status)),
        address: cell(at.address),
        weight: Number(cell(at.weight)),
        sessions: Number(cell(at.sessions)),
        queued: Number(cell(at.queued)),
        requests: Number(cell(at.requests)),
        maxconn: Number(cell(at.maxconn)),
      })
    }
  }
  return pool
}

function statusOf(word: string): ServerStat['status'] {
  if (word.startsWith('MAINT')) return 'maint'
  if (word.startsWith('DRAIN')) return 'drain'
  if (word.startsWith('DOWN')) return 'down'
  return 'up'
}

/** HAProxy quotes only cells with commas in them, and the columns read here come before and after such a one. */
function splitCsv(line: string): string[] {
  if (!line.includes('"')) return line.split(',')
  const cells: string[] = []
  for (const match of line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g)) {
    cells.push(match[1] ?? match[2] ?? '')
  }
  return cells
}

/** `show map`: an address, the key, the value. */
export function parseMap(text: string): Map<string, string> {
  const map = new Map<string, string>()
  for (const line of text.split('\n')) {
    const [, key, value] = line.split(' ')
    if (key !== undefined && value !== undefined) map.set(key, value)
  }
  return map
}

/** `show servers conn`: `slot/server`, ids, address, port, -, purge delay, connections in use, … */
export function parseConnections(...texts: string[]): Map<string, number> {
  const used = new Map<string, number>()
  for (const line of texts.join('\n').split('\n')) {
    if (line === '' || line.startsWith('#')) continue
    const cells = line.split(' ')
    used.set(cells[0]!, Number(cells[6]))
  }
  return used
}

/** `show servers state`: slot id, slot, server id, server, address, operational state (0 is down), administrative state, … */
export function parseDown(...texts: string[]): Set<string> {
  const down = new Set<string>()
  for (const line of texts.join('\n').split('\n')) {
    const [, slot, , server, , operational, administrative] = line.split(' ')
    if (operational === '0' && administrative === '0') down.add(`${slot}/${server}`)
  }
  return down
}
