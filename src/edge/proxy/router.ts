import { systemClock } from '#core/clock.ts'
import { messageOf } from '#core/fault.ts'
import type { MachineRow } from '#spec/roster.ts'
import type { Logger } from '#sys/log.ts'
import type { Admin } from './admin.ts'
import { commandsFor, type Command } from './commands.ts'
import { slotId, slotName, type ProxyPaths } from './config.ts'
import { openProber } from './prober.ts'
import {
  actualFromStats,
  addressOf,
  applyChange,
  reconcile,
  type Actual,
  type Change,
  type Server,
} from './reconcile.ts'
import { routesOf, type Member, type Pool, type Routes } from './routes.ts'
import type { RowTable } from './row-table.ts'
import { parseMap, parseStat, type PoolStat } from './stats.ts'

/**
 * Keeps HAProxy as the roster's rows want it. The rows are the wish, `actual` is what HAProxy has; after a change the
 * app concerned is compared and only the difference is told. An answer that was not expected means that HAProxy is not
 * what we think: everything is read back and compared anew.
 */
export interface RouterOptions {
  admin: Admin
  rows: RowTable
  paths: ProxyPaths
  domain: string
  slots: number
  log: Logger
  /** Called for each row once HAProxy has it. */
  onApplied(row: MachineRow): void
}

const retryMs = 200
const deleteRetryMs = 500
const leavingPollMs = 50
/** A slot rests this long before another app gets it. */
const slotRestMs = 2_000

export class Router {
  readonly #options: RouterOptions
  readonly #routes = new Map<string, Routes>()
  readonly #prober = openProber()
  readonly #dirty = new Set<string>()
  readonly #accepting = new Set<string>()
  readonly #applied = new Map<string, { host: string; counter: number }>()
  readonly #listeners = new Set<() => void>()
  readonly #restingUntil = new Map<string, number>()
  readonly #warned = new Set<string>()
  #actual: Actual = { owners: new Map(), http: new Map(), https: new Map(), servers: new Map() }
  #loaded = false
  #paused = true
  #closed = false
  #working = false
  #lastName = 0
  #leavingLoop = false

  constructor(options: RouterOptions) {
    this.#options = options
    for (const app of options.rows.apps()) this.#plan(app)
  }

  /** Takes a row in; it is in effect when `onApplied` has been called with it. */
  put(row: MachineRow): void {
    const before = this.#options.rows.get(row.id)
    if (!this.#options.rows.put(row)) return
    if (before && before.app !== row.app) this.#touch(before.app)
    this.#touch(row.app)
  }

  forget(gone: { host: string; id: string }): void {
    const app = this.#options.rows.forget(gone)
    this.#applied.delete(gone.id)
    if (app !== undefined) this.#touch(app)
  }

  /** HAProxy runs and may be read and written. Everything is read back first. */
  resume(): void {
    this.#paused = false
    this.#loaded = false
    this.#work()
  }

  /** HAProxy is gone: nothing is written until `resume`. */
  pause(): void {
    this.#paused = true
  }

  close(): void {
    this.#closed = true
    this.#prober.close()
  }

  /** Ends when HAProxy has been read back and everything known is in effect. */
  async settled(): Promise<void> {
    while (!this.#loaded || this.#dirty.size > 0 || this.#working) await this.changed()
  }

  /** Resolves at the next change of anything a held request may wait for, at the latest after `timeoutMs`. */
  changed(timeoutMs = 1_000): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer)
        this.#listeners.delete(done)
        resolve()
      }
      const timer = setTimeout(done, timeoutMs)
      this.#listeners.add(done)
    })
  }

  /** The pool that a host name leads to, by the app's name in it. */
  poolOf(host: string, door: 'http' | 'https'): Pool | undefined {
    const suffix = `.${this.#options.domain}`
    const name = host.toLowerCase()
    if (!name.endsWith(suffix)) return undefined
    const routes = this.#routes.get(name.slice(0, -suffix.length))
    const key = routes?.[door].get(name)
    return key === undefined
      ? undefined
      : (routes?.pools.get(key) ?? routes?.pools.values().next().value)
  }

  *pools(): Generator<Pool> {
    for (const routes of this.#routes.values()) yield* routes.pools.values()
  }

  pool(key: string): Pool | undefined {
    return this.#routes.get(key.split(':')[0]!)?.pools.get(key)
  }

  slotOf(poolKey: string): string | undefined {
    for (const [slot, key] of this.#actual.owners) if (key === poolKey) return slot
    return undefined
  }

  /** True when HAProxy has a server that it would send the pool's next request to. */
  hasServer(poolKey: string): boolean {
    const slot = this.slotOf(poolKey)
    const servers = slot === undefined ? [] : (this.#actual.servers.get(slot) ?? [])
    return servers.some((server) => server.state === 'up')
  }

  /** Milliseconds that a started machine has refused connections; undefined when it does not. */
  refusingMs(member: Member): number | undefined {
    return this.#prober.waitingMs(probeKey(member))
  }

  /** The maps that a HAProxy starting now should begin with. Slots keep their owners over its death. */
  plannedMaps(): {
    owners: Map<string, string>
    http: Map<string, string>
    https: Map<string, string>
  } {
    const actual = this.#actual
    const planned: Actual = {
      owners: new Map(actual.owners),
      http: new Map(),
      https: new Map(),
      servers: new Map(),
    }
    const free = this.#freeSlots()
    for (const routes of this.#routes.values()) {
      const app = {
        ...planned,
        owners: new Map([...planned.owners].filter(([, key]) => routes.pools.has(key))),
        http: new Map(),
        https: new Map(),
      }
      const { changes } = reconcile(routes, app, {
        freeSlots: free,
        accepts: () => false,
        newName: (machine) => machine,
      })
      for (const change of changes) {
        if (change.do === 'own') free.shift()
        applyChange(planned, change)
      }
    }
    for (const [slot, key] of planned.owners) if (!this.pool(key)) planned.owners.delete(slot)
    return planned
  }

  /** Slots with servers: those worth reading. */
  busySlots(): string[] {
    return [...this.#actual.servers]
      .filter(([, servers]) => servers.length > 0)
      .map(([slot]) => slot)
  }

  poolKeyOfSlot(slot: string): string | undefined {
    return this.#actual.owners.get(slot)
  }

  /** Requests in flight to a machine, as last read. */
  sessions(machine: string): number {
    let sum = 0
    for (const servers of this.#actual.servers.values()) {
      for (const server of servers) if (server.machine === machine) sum += server.sessions
    }
    return sum
  }

  /** Reads the counters of some slots and takes note of servers that HAProxy has marked down. */
  async read(slots: readonly string[]): Promise<PoolStat> {
    const commands = slots.map((slot) => `show stat ${slotId(Number(slot.slice(4)))} 6 -1`)
    const stat = parseStat(...(await this.#options.admin.run(commands)))
    for (const line of stat.servers) {
      const server = this.#actual.servers.get(line.slot)?.find((s) => s.name === line.server)
      if (!server) continue
      server.sessions = line.sessions
      if (line.status === 'down' && server.state === 'up') this.#markedDown(line.slot, server)
    }
    return stat
  }

  /** A request came to the waker although a server should have taken it: look what HAProxy thinks. */
  async look(poolKey: string): Promise<void> {
    const slot = this.slotOf(poolKey)
    if (slot !== undefined && !this.#paused) await this.read([slot]).catch(() => undefined)
  }

  #plan(app: string): void {
    const rows = this.#options.rows.ofApp(app)
    if (rows.length === 0) this.#routes.delete(app)
    else this.#routes.set(app, routesOf(rows, { domain: this.#options.domain }))
    for (const what of this.#routes.get(app)?.unsupported ?? []) {
      if (this.#warned.has(what)) continue
      this.#warned.add(what)
      this.#options.log.warn(`${what} is not carried by the edge yet; only HTTP on 80 and 443 is`)
    }
  }

  #touch(app: string): void {
    this.#plan(app)
    this.#dirty.add(app)
    this.#work()
  }

  #notify(): void {
    for (const listener of this.#listeners) listener()
  }

  #work(): void {
    if (this.#working || this.#closed || this.#paused) return
    this.#working = true
    void this.#drainWork().finally(() => {
      this.#working = false
      this.#notify()
    })
  }

  async #drainWork(): Promise<void> {
    // One turn of the event loop gathers rows that arrive together into one batch.
    await new Promise((resolve) => setImmediate(resolve))
    while (!this.#closed && !this.#paused) {
      try {
        if (!this.#loaded) await this.#load()
        if (this.#dirty.size === 0) return
        const apps = [...this.#dirty]
        this.#dirty.clear()
        await this.#apply(apps)
        this.#notify()
      } catch (error) {
        this.#loaded = false
        this.#options.log.warn(
          { error: messageOf(error) },
          'HAProxy is read back and compared anew',
        )
        await systemClock.sleep(retryMs)
      }
    }
  }

  /** Reads all that HAProxy has and marks every app for comparison. */
  async #load(): Promise<void> {
    const { admin, paths } = this.#options
    const answers = await admin.run([
      'show stat -1 4 -1',
      `show map ${paths.ownersMap}`,
      `show map ${paths.httpMap}`,
      `show map ${paths.httpsMap}`,
    ])
    const [stat = '', owners = '', http = '', https = ''] = answers
    this.#actual = actualFromStats(parseStat(stat).servers, {
      owners: parseMap(owners),
      http: parseMap(http),
      https: parseMap(https),
    })
    this.#loaded = true
    this.#applied.clear()
    for (const app of this.#options.rows.apps()) this.#dirty.add(app)
    for (const key of this.#actual.owners.values()) this.#dirty.add(key.split(':')[0]!)
    for (const door of ['http', 'https'] as const) {
      for (const host of this.#actual[door].keys()) {
        this.#dirty.add(host.slice(0, -this.#options.domain.length - 1))
      }
    }
    for (const [slot, servers] of this.#actual.servers) {
      for (const server of servers) {
        if (server.state === 'down') this.#reviveWhenAccepting(slot, server)
        // It takes traffic already: no probe is needed to keep it.
        if (server.state === 'up') this.#accepting.add(`${server.machine}@${server.address}`)
      }
    }
    this.#watchLeaving()
  }

  async #apply(apps: string[]): Promise<void> {
    const free = this.#freeSlots()
    const changes: Change[] = []
    const rows: MachineRow[] = []
    const emptied: Change[] = []
    for (const app of apps) {
      const routes = this.#routes.get(app) ?? emptyRoutes
      this.#probe(routes)
      const diff = reconcile(routes, this.#view(app), {
        freeSlots: free,
        accepts: (member) => this.#accepting.has(probeKey(member)),
        newName: (machine) => this.#newName(machine),
      })
      for (const change of diff.changes) {
        if (change.do === 'own') free.shift()
        if (change.do === 'disown') emptied.push(change)
        else changes.push(change)
      }
      for (const key of diff.homeless) {
        this.#options.log.error(
          `no free slot for ${key}: all ${this.#options.slots} are taken; raise edge.slots in hangar.toml`,
        )
      }
      rows.push(...this.#options.rows.ofApp(app))
    }
    await this.#tell(changes)
    await this.#giveUpSlots(emptied)
    if (changes.some((change) => change.do === 'leave')) await this.#readLeaving()
    for (const row of rows) this.#sayApplied(row)
    this.#watchLeaving()
  }

  #sayApplied(row: MachineRow): void {
    const before = this.#applied.get(row.id)
    if (before && before.host === row.host && before.counter >= row.counter) return
    this.#applied.set(row.id, { host: row.host, counter: row.counter })
    this.#options.onApplied(row)
  }

  async #tell(changes: Change[]): Promise<void> {
    const commands: Command[] = []
    for (const change of changes) commands.push(...commandsFor(change, this.#options.paths))
    if (commands.length === 0) return
    const answers = await this.#options.admin.run(commands.map((command) => command.text))
    for (const [index, command] of commands.entries()) {
      const answer = answers[index] ?? ''
      if (!command.good(answer)) {
        throw new Error(`HAProxy answered "${answer.trim()}" to: ${command.text}`)
      }
    }
    for (const change of changes) applyChange(this.#actual, change)
  }

  /** A slot is given up only when no request is left in it: one still held would be replayed to the next owner. */
  async #giveUpSlots(changes: Change[]): Promise<void> {
    for (const change of changes) {
      if (change.do !== 'disown') continue
      const { slot } = change
      const app = this.#actual.owners.get(slot)?.split(':')[0] ?? ''
      const stat = await this.read([slot])
      if ((stat.inFlight.get(slot) ?? 0) > 0) {
        void systemClock.sleep(deleteRetryMs).then(() => {
          this.#dirty.add(app)
          this.#work()
        })
        continue
      }
      await this.#tell([change])
      this.#restingUntil.set(slot, systemClock.now() + slotRestMs)
    }
  }

  #view(app: string): Actual {
    const view: Actual = {
      owners: new Map(),
      http: new Map(),
      https: new Map(),
      servers: new Map(),
    }
    for (const [slot, key] of this.#actual.owners) {
      if (key !== app && !key.startsWith(`${app}:`)) continue
      view.owners.set(slot, key)
      const servers = this.#actual.servers.get(slot)
      if (servers) view.servers.set(slot, servers)
    }
    const host = `${app}.${this.#options.domain}`
    for (const door of ['http', 'https'] as const) {
      const to = this.#actual[door].get(host)
      if (to !== undefined) view[door].set(host, to)
    }
    return view
  }

  #freeSlots(): string[] {
    const now = systemClock.now()
    const free: string[] = []
    const rested: string[] = []
    for (let index = 0; index < this.#options.slots; index++) {
      const slot = slotName(index)
      if (this.#actual.owners.has(slot)) continue
      if ((this.#actual.servers.get(slot)?.length ?? 0) > 0) continue
      const until = this.#restingUntil.get(slot)
      if (until === undefined) free.push(slot)
      else if (until < now) rested.push(slot)
    }
    return [...free, ...rested]
  }

  /** Names only grow, over restarts too: HAProxy must never see one twice. */
  #newName(machine: string): string {
    this.#lastName = Math.max(this.#lastName + 1, systemClock.now())
    return `${machine}.${this.#lastName.toString(36)}`
  }

  #probe(routes: Routes): void {
    for (const pool of routes.pools.values()) {
      for (const member of pool.members.values()) {
        const key = probeKey(member)
        if (!member.usable) {
          this.#accepting.delete(key)
          this.#prober.drop(key)
        } else if (!this.#accepting.has(key)) {
          this.#prober.watch(key, addressOf(member), () => {
            this.#accepting.add(key)
            this.#dirty.add(pool.app)
            this.#work()
          })
        }
      }
    }
  }

  #markedDown(slot: string, server: Server): void {
    server.state = 'down'
    this.#reviveWhenAccepting(slot, server)
  }

  #reviveWhenAccepting(slot: string, server: Server): void {
    this.#prober.watch(`${server.machine}@${server.address}`, server.address, () => {
      if (server.state !== 'down' || this.#paused) return
      this.#options.admin.run([`set server ${slot}/${server.name} health up`]).then(
        () => {
          if (server.state === 'down') server.state = 'up'
          this.#notify()
        },
        () => {
          this.#loaded = false
          this.#work()
        },
      )
    })
  }

  #leaving(): [string, Server][] {
    const leaving: [string, Server][] = []
    for (const [slot, servers] of this.#actual.servers) {
      for (const server of servers) if (server.state === 'leaving') leaving.push([slot, server])
    }
    return leaving
  }

  async #readLeaving(): Promise<PoolStat> {
    return await this.read([...new Set(this.#leaving().map(([slot]) => slot))])
  }

  #watchLeaving(): void {
    if (this.#leavingLoop) return
    this.#leavingLoop = true
    void this.#removeLeaving().finally(() => (this.#leavingLoop = false))
  }

  /** Deletes leaving servers once they are idle; HAProxy refuses while it keeps an idle connection, for about 5 s. */
  async #removeLeaving(): Promise<void> {
    const nextTry = new Map<string, number>()
    while (!this.#closed && !this.#paused && this.#leaving().length > 0) {
      const stat = await this.#readLeaving().catch(() => undefined)
      if (!stat) return
      for (const [slot, server] of this.#leaving()) {
        const line = stat.servers.find((s) => s.slot === slot && s.server === server.name)
        const now = systemClock.now()
        if (line && line.sessions > 0) continue
        if ((nextTry.get(server.name) ?? 0) > now) continue
        nextTry.set(server.name, now + deleteRetryMs)
        const at = `${slot}/${server.name}`
        const [, answer = ''] = await this.#options.admin
          .run([`set server ${at} state maint`, `del server ${at}`])
          .catch(() => ['', ''])
        if (line && !answer.includes('Server deleted')) continue
        const left = (this.#actual.servers.get(slot) ?? []).filter((s) => s !== server)
        if (left.length > 0) this.#actual.servers.set(slot, left)
        else this.#actual.servers.delete(slot)
        const owner = this.#actual.owners.get(slot)
        if (owner !== undefined && left.length === 0) {
          this.#dirty.add(owner.split(':')[0]!)
          this.#work()
        }
      }
      await systemClock.sleep(leavingPollMs)
    }
  }
}

const emptyRoutes: Routes = { pools: new Map(), http: new Map(), https: new Map(), unsupported: [] }
const probeKey = (member: Member) => `${member.row.id}@${addressOf(member)}`
