import type { EdgeWord, HostRow } from '#spec/roster.ts'
import type { Logger } from '#sys/log.ts'
import { startAnnouncer, type Announcer } from './announcer.ts'
import { openBus } from './connection.ts'
import { sayEdgeWord, watchEdges, type EdgesView } from './edges.ts'
import { startWatcher, type Watcher, type WatchOptions } from './watcher.ts'

export type { Announcer } from './announcer.ts'
export type { EdgesView } from './edges.ts'
export type { Watcher, WatchOptions } from './watcher.ts'

/** Who runs what, spread over NATS. Hosts announce, edges and control watch, edges answer with what they have applied. */
export interface Roster {
  announcer(options: { region: string; host: () => HostRow }): Announcer
  watch(options: WatchOptions): Watcher
  say(word: EdgeWord): void
  edges(options: { region: string }): EdgesView
  connected(): boolean
  close(): Promise<void>
}

export interface RosterOptions {
  natsUrl: string
  /** The cluster key: the bus takes it as its token. */
  key: string
  name: string
  log: Logger
}

/** Resolves at once; the bus is reached in the background and kept, so that no role waits for it to start. */
export async function connectRoster(options: RosterOptions): Promise<Roster> {
  const { log } = options
  const bus = openBus(options)
  return {
    announcer: ({ region, host }) => startAnnouncer({ bus, region, host, log }),
    watch: (watch) => startWatcher(bus, watch, log),
    say: (word) => sayEdgeWord(bus, word),
    edges: ({ region }) => watchEdges(bus, region),
    connected: () => bus.current() !== undefined && !bus.current()?.isClosed(),
    close: () => bus.close(),
  }
}
