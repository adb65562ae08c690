import net from 'node:net'
import { systemClock } from '#core/clock.ts'

/**
 * A machine that runs does not listen yet. Its server is added, or taken back after a refusal, only once something
 * accepts a connection at its port (PRX-44): HAProxy would make the request wait a second for each refusal.
 */
export interface Prober {
  /** Calls back once when the address accepts; asking again while a probe runs changes nothing. */
  watch(key: string, address: string, accepted: () => void): void
  /** Milliseconds since the probe of this key began; undefined when none runs. */
  waitingMs(key: string): number | undefined
  drop(key: string): void
  close(): void
}

const firstDelayMs = 10
const delayMsMax = 500
const connectTimeoutMs = 2_000

export function openProber(): Prober {
  const running = new Map<string, { since: number; stop: AbortController }>()

  async function probe(key: string, address: string, accepted: () => void): Promise<void> {
    const stop = new AbortController()
    running.set(key, { since: systemClock.now(), stop })
    let delay = firstDelayMs
    while (!stop.signal.aborted) {
      if (await accepts(address)) {
        if (stop.signal.aborted) return
        running.delete(key)
        accepted()
        return
      }
      const jittered = delay * (0.75 + Math.random() / 2)
      await systemClock.sleep(jittered, stop.signal).catch(() => {})
      delay = Math.min(delayMsMax, delay * 1.5)
    }
  }

  const drop = (key: string) => {
    running.get(key)?.stop.abort()
    running.delete(key)
  }
  return {
    watch(key, address, accepted) {
      if (!running.has(key)) void probe(key, address, accepted)
    },
    waitingMs(key) {
      const probe = running.get(key)
      return probe && systemClock.now() - probe.since
    },
    drop,
    close: () => [...running.keys()].forEach(drop),
  }
}

/** True when a TCP connection to `ip:port` is accepted. */
export function accepts(address: string): Promise<boolean> {
  const at = address.lastIndexOf(':')
  return new Promise((resolve) => {
    const socket = net.createConnection({
      host: address.slice(0, at),
      port: Number(address.slice(at + 1)),
    })
    const end = (result: boolean) => {
      socket.destroy()
      resolve(result)
    }
    socket.setTimeout(connectTimeoutMs, () => end(false))
    socket.once('connect', () => end(true))
    socket.once('error', () => end(false))
  })
}
