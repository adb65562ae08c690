import { systemClock } from '#core/clock.ts'
import { messageOf } from '#core/fault.ts'
import type { MachineRow } from '#spec/roster.ts'
import type { Logger } from '#sys/log.ts'
import type { Admin } from './admin.ts'
import { commandsFor, type Command } from './commands.ts'
import type { ProxyPaths } from './config.ts'
import { LeavingServers } from './leaving.ts'
import { openProber } from './prober.ts'
import { readActual, readConnections, readCounters, readDown } from './read-back.ts'
import {
  addressOf,
  applyChange,
  emptyActual,
  reconcile,
  type Actual,
  type Change,
  type Server,
} from './reconcile.ts'
import { emptyRoutes, type Member, type Routes } from './routes.ts'
import type { RouteTable } from './route-table.ts'
import { openSlotShelf } from './slots.ts'
import type { PoolStat } from './stats.ts'

/**
 * Keeps HAProxy as the route table wants it. `actual` is what HAProxy has; after a change the app concerned is compared
 * and only the difference is told. An answer that was not expected means that HAProxy is not what we think: everything
 * is read back and compared anew, and an app that fails again by itself waits, so that it holds up no other.
 */
export interface RouterOptions {
  admin: Admin
  table: RouteTable
  paths: ProxyPaths
  slots: number
  log: Logger
  /** Called for each row once HAProxy has it. */
  onApplied: (row: MachineRow) => void
}

const retryMs = 200
const sickMs = 5_000
/** Each second so many slots are looked at: what it costs HAProxy does not grow with the number of apps. */
const watchMs = 1_000
const watchedAtOnce = 100
const giveUpRetryMs = 500
const acceptGraceMs = 1_000

export class Router {
  readonly #options: RouterOptions
  readonly #prober = openProber()
  readonly #shelf: ReturnType<typeof openSlotShelf>
  readonly #leaving: LeavingServers
  readonly #closed = new AbortController()
  readonly #dirty = new Set<string>()
  readonly #sick = new Map<string, number>()
  /** Addresses of machines at which something accepts connections. */
  readonly #accepting = new Set<string>()
  readonly #applied = new Map<string, MachineRow>()
  readonly #listeners = new Set<() => void>()
  readonly #slotOfPool = new Map<string, string>()
  #actual: Actual = emptyActual()
  #loaded = false
  #paused = true
  #working = false

  constructor(options: RouterOptions) {
    this.#options = options
    this.#shelf = openSlotShelf(options.slots)
    this.#leaving = new LeavingServers({
      admin: options.admin,
      actual: () => this.#actual,
      read: async (slots) => await this.read(slots),
      live: () => !this.#paused && !this.#closed.signal.aborted,
      onEmpty: (slot) => this.#touchOwner(slot),
    })
    options.table.onChange((app) => this.#touch(app))
    void this.#watchServers()
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
    this.#closed.abort()
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

  slotOf(poolKey: string): string | undefined {
    return this.#slotOfPool.get(poolKey)
  }

  /** True when HAProxy has a server that it would send the pool's next request to. */
  hasServer(poolKey: string): boolean {
    return this.#serversOf(poolKey).some((server) => server.state === 'up')
  }

  /** Milliseconds that a started machine has refused connections; undefined when it does not. */
  refusingMs(member: Member): number | undefined {
    return this.#prober.waitingMs(probeKey(member.row.id, addressOf(member)))
  }

  /** Requests in flight to a machine of the app through HAProxy, as last read. */
  sessions(machine: { id: string; app: string }): number {
    let sum = 0
    for (const key of poolKeysOf(machine.app)) {
      for (const server of this.#serversOf(key)) {
        if (server.machine === machine.id) sum += server.sessions
      }
    }
    return sum
  }

  /** What a HAProxy that starts now should begin with: slots keep their owners over its death. */
  plannedMaps(): Actual {
    const planned = emptyActual()
    for (const [slot, key] of this.#actual.owners) {
      if (this.#options.table.pool(key)) planned.owners.set(slot, key)
    }
    const slotOf = new Map([...planned.owners].map(([slot, key]) => [key, slot]))
    const free = this.#shelf.free(planned)
    for (const routes of this.#options.table.routes()) {
      const view = emptyActual()
      for (const key of routes.pools.keys()) {
        const slot = slotOf.get(key)
        if (slot !== undefined) view.owners.set(slot, key)
      }
      const options = { freeSlots: free, accepts: () => false, newName: (id: string) => id }
      for (const change of reconcile(routes, view, options).changes) {
        if (change.do === 'own') free.shift()
        applyChange(planned, change)
      }
    }
    return planned
  }

  /** Reads the counters of some slots and takes note of servers that HAProxy has marked down. */
  async read(slots: readonly string[]): Promise<PoolStat> {
    const stat = await readCounters(this.#options.admin, slots)
    for (const line of stat.servers) {
      const server = this.#actual.servers.get(line.slot)?.find((s) => s.name === line.server)
      if (!server) continue
      server.sessions = line.sessions
      if (line.status === 'down') this.#markedDown(line.slot, server)
    }
    return stat
  }

  /** Brings `sessions` up to date for the pools, cheaply. */
  async readSessions(poolKeys: Iterable<string>): Promise<void> {
    const slots = [...poolKeys].flatMap((key) => this.slotOf(key) ?? [])
    const used = await readConnections(this.#options.admin, slots)
    for (const slot of slots) {
      for (const server of this.#actual.servers.get(slot) ?? []) {
        server.sessions = used.get(`${slot}/${server.name}`) ?? 0
      }
    }
  }

  /** A request came to the waker although a server should have taken it: look what HAProxy thinks. */
  async look(poolKey: string): Promise<void> {
    const slot = this.slotOf(poolKey)
    if (slot !== undefined && !this.#paused) await this.read([slot]).catch(() => undefined)
  }

  /** Finds servers marked down that no request to the waker points at, some slots at a time. */
  async #watchServers(): Promise<void> {
    let at = 0
    while (!this.#closed.signal.aborted) {
      await systemClock.sleep(watchMs, this.#closed.signal).catch(() => {})
      if (this.#paused || !this.#loaded) continue
      const all = [...this.#actual.servers.keys()]
      if (at >= all.length) at = 0
      const slots = all.slice(at, at + watchedAtOnce)
      at += watchedAtOnce
      const down = await readDown(this.#options.admin, slots).catch(() => undefined)
      if (!down || down.size === 0) continue
      for (const slot of slots) {
        for (const server of this.#actual.servers.get(slot) ?? []) {
          if (down.has(`${slot}/${server.name}`)) this.#markedDown(slot, server)
        }
      }
    }
  }

  #markedDown(slot: string, server: Server): void {
    if (server.state !== 'up') return
    server.state = 'down'
    this.#options.log.warn(
      { machine: server.machine, address: server.address },
      'a machine refused a connection; it gets no requests until it accepts again',
    )
    this.#reviveWhenAccepting(slot, server)
  }

  #serversOf(poolKey: string): Server[] {
    const slot = this.#slotOfPool.get(poolKey)
    return (slot === undefined ? undefined : this.#actual.servers.get(slot)) ?? []
  }

  #touch(app: string): void {
    this.#dirty.add(app)
    this.#work()
  }

  #touchOwner(slot: string): void {
    const owner = this.#actual.owners.get(slot)
    if (owner !== undefined) this.#touch(appOfPool(owner))
  }

  #touchLater(app: string, ms: number): void {
    void systemClock.sleep(ms, this.#closed.signal).then(
      () => this.#touch(app),
      () => {},
    )
  }

  #notify(): void {
    for (const listener of this.#listeners) listener()
  }

  #work(): void {
    if (this.#working || this.#paused || this.#closed.signal.aborted) return
    this.#working = true
    void this.#workOff().finally(() => {
      this.#working = false
      this.#notify()
      if (this.#dirty.size > 0) this.#work()
    })
  }

  async #workOff(): Promise<void> {
    // One turn of the event loop gathers rows that arrive together into one batch.
    await new Promise((resolve) => setImmediate(resolve))
    let apart = false
    while (!this.#paused && !this.#closed.signal.aborted) {
      let apps: string[] = []
      try {
        if (!this.#loaded) await this.#load()
        if (this.#dirty.size === 0) return
        apps = apart ? [...this.#dirty].slice(0, 1) : [...this.#dirty]
        for (const app of apps) this.#dirty.delete(app)
        await this.#apply(apps)
        for (const app of apps) this.#sick.delete(app)
        this.#notify()
      } catch (error) {
        this.#loaded = false
        const [app] = apps
        this.#options.log.warn({ app, error: messageOf(error) }, 'HAProxy is read back')
        if (apart && apps.length === 1 && app !== undefined) this.#setAside(app)
        apart = true
        await systemClock.sleep(retryMs)
      }
    }
  }

  /** Nothing that one app's rows say may keep the other apps' changes waiting. */
  #setAside(app: string): void {
    const times = (this.#sick.get(app) ?? 0) + 1
    this.#sick.set(app, times)
    this.#touchLater(app, Math.min(60_000, sickMs * times))
  }

  /** Reads all that HAProxy has and marks every app for comparison. */
  async #load(): Promise<void> {
    const actual = await readActual(this.#options.admin, this.#options.paths)
    this.#actual = actual
    this.#loaded = true
    this.#slotOfPool.clear()
    for (const [slot, key] of actual.owners) this.#slotOfPool.set(key, slot)
    const apps = new Set<string>(this.#options.table.apps())
    for (const key of actual.owners.values()) apps.add(appOfPool(key))
    for (const door of [actual.http, actual.https]) {
      for (const host of door.keys()) apps.add(this.#options.table.appOfHost(host) ?? host)
    }
    for (const app of apps) if (!this.#sick.has(app)) this.#dirty.add(app)
    for (const [slot, servers] of actual.servers) {
      for (const server of servers) {
        if (server.state === 'down') this.#reviveWhenAccepting(slot, server)
        // It takes traffic already: no probe is needed to keep it.
        if (server.state === 'up') this.#accepting.add(probeKey(server.machine, server.address))
      }
    }
    this.#leaving.watch()
  }

  async #apply(apps: string[]): Promise<void> {
    const free = this.#shelf.free(this.#actual)
    const changes: Change[] = []
    const emptied: string[] = []
    // A row that comes while HAProxy is told these is not in effect with them.
    const told = apps.flatMap((app) => this.#options.table.rowsOf(app))
    for (const app of apps) {
      const routes = this.#options.table.routesOf(app) ?? emptyRoutes
      this.#probe(app, routes)
      const { changes: ofApp, homeless } = reconcile(routes, this.#view(app), {
        freeSlots: free,
        accepts: (member) => this.#accepting.has(probeKey(member.row.id, addressOf(member))),
        newName: (machine) => this.#leaving.newName(machine),
      })
      for (const change of ofApp) {
        if (change.do === 'own') free.shift()
        if (change.do === 'disown') emptied.push(change.slot)
        else changes.push(change)
      }
      for (const key of homeless) {
        this.#options.log.error(
          `no free slot for ${key}: all ${this.#options.slots} are taken; raise edge.slots in hangar.toml`,
        )
        this.#touchLater(app, sickMs)
      }
    }
    await this.#tell(changes)
    for (const slot of emptied) await this.#giveUp(slot)
    // Counted after the drain took effect: what is in flight now is all there will be.
    if (changes.some((change) => change.do === 'leave')) await this.#leaving.read()
    for (const row of told) this.#sayApplied(row)
    this.#leaving.watch()
  }

  #sayApplied(row: MachineRow): void {
    if (this.#applied.get(row.id) === row) return
    // A machine that just started is not in effect before it takes requests; one that never listens is told anyway.
    if (this.#justProbed(row)) return this.#touchLater(row.app, acceptGraceMs)
    this.#applied.set(row.id, row)
    this.#options.onApplied(row)
  }

  #justProbed(row: MachineRow): boolean {
    for (const pool of this.#options.table.routesOf(row.app)?.pools.values() ?? []) {
      const member = pool.members.get(row.id)
      if (member?.usable && (this.refusingMs(member) ?? acceptGraceMs) < acceptGraceMs) return true
    }
    return false
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
    for (const change of changes) {
      applyChange(this.#actual, change)
      if (change.do === 'own') this.#slotOfPool.set(change.pool, change.slot)
    }
  }

  /** A slot is given up only when no request is left in it: one still held would be replayed to the next owner. */
  async #giveUp(slot: string): Promise<void> {
    const key = this.#actual.owners.get(slot)
    if (key === undefined) return
    const stat = await this.read([slot])
    if ((stat.inFlight.get(slot) ?? 0) > 0) {
      this.#touchLater(appOfPool(key), giveUpRetryMs)
      return
    }
    await this.#tell([{ do: 'disown', slot }])
    this.#slotOfPool.delete(key)
    this.#shelf.rest(slot)
  }

  /** The part of `actual` that concerns one app. */
  #view(app: string): Actual {
    const view = emptyActual()
    for (const key of poolKeysOf(app)) {
      const slot = this.#slotOfPool.get(key)
      if (slot === undefined) continue
      view.owners.set(slot, key)
      view.servers.set(slot, this.#actual.servers.get(slot) ?? [])
    }
    const host = this.#options.table.hostOfApp(app)
    for (const door of ['http', 'https'] as const) {
      const to = this.#actual[door].get(host)
      if (to !== undefined) view[door].set(host, to)
    }
    return view
  }

  #probe(app: string, routes: Routes): void {
    for (const pool of routes.pools.values()) {
      for (const member of pool.members.values()) {
        const address = addressOf(member)
        const key = probeKey(member.row.id, address)
        if (!member.usable) {
          this.#accepting.delete(key)
          this.#prober.drop(key)
        } else if (!this.#accepting.has(key)) {
          this.#prober.watch(key, address, () => {
            this.#accepting.add(key)
            this.#touch(app)
          })
        }
      }
    }
  }

  #reviveWhenAccepting(slot: string, server: Server): void {
    this.#prober.watch(probeKey(server.machine, server.address), server.address, () => {
      if (server.state !== 'down' || this.#paused) return
      this.#options.admin.run([`set server ${slot}/${server.name} health up`]).then(
        () => {
          if (server.state === 'down') server.state = 'up'
          this.#notify()
        },
        () => {}, // HAProxy is gone: all is read back when it is there again.
      )
    })
  }
}

const probeKey = (machine: string, address: string) => `${machine}@${address}`
const appOfPool = (key: string) => key.split(':', 1)[0]!
/** The pools an app can have (routes.ts). */
const poolKeysOf = (app: string) => [app, `${app}:80`]
