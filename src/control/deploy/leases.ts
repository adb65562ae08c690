import { Fault, isFault, messageOf } from '#core/fault.ts'
import { leaseRefreshMs, leaseTtlSeconds } from './job.ts'
import { pool } from './pool.ts'
import type { DeployWorld } from './world.ts'

/** The leases of one deploy: taken before anything changes, refreshed in the background, released at the end. DEP-5. */
export class Leases {
  private readonly nonces = new Map<string, string>()
  private readonly stop = new AbortController()
  private lost: Fault | undefined
  private readonly world: DeployWorld
  private readonly refreshing: Promise<void>

  constructor(world: DeployWorld) {
    this.world = world
    this.refreshing = this.keepFresh()
  }

  /**
   * Takes the leases of all these machines. One that is held by another fails it, unless `waitMs` gives a dead holder's
   * lease the time to run out.
   */
  async take(ids: readonly string[], { waitMs, signal }: { waitMs: number; signal: AbortSignal }) {
    const deadline = this.world.clock.now() + waitMs
    await pool(ids, 16, async (id) => {
      for (;;) {
        signal.throwIfAborted()
        try {
          const options = { ttlSeconds: leaseTtlSeconds }
          this.nonces.set(id, await this.world.acquireLease(id, options))
          return
        } catch (error) {
          if (!isFault(error, 'lease_held') || this.world.clock.now() > deadline) throw error
          await this.world.clock.sleep(500, signal)
        }
      }
    })
  }

  /** A lease that a create took along. */
  adopt(id: string, nonce: string | undefined): void {
    if (nonce) this.nonces.set(id, nonce)
  }

  forget(id: string): void {
    this.nonces.delete(id)
  }

  /** The nonce to show; throws when the lease was lost on the way, so that nobody acts without it. */
  nonce(id: string): string {
    if (this.lost) throw this.lost
    const nonce = this.nonces.get(id)
    if (!nonce) throw new Fault('internal', `no lease of machine ${id} was taken`)
    return nonce
  }

  async releaseAll(): Promise<void> {
    this.stop.abort()
    await this.refreshing
    await pool([...this.nonces], 16, async ([id, nonce]) => {
      for (let attempt = 1; attempt <= 5; attempt++) {
        try {
          await this.world.releaseLease(id, nonce)
          return
        } catch (error) {
          // One that ran out or whose machine is gone needs no release.
          if (isFault(error, 'not_found') || isFault(error, 'lease_held')) return
          if (attempt < 5) await this.world.clock.sleep(100 * attempt)
        }
      }
    })
    this.nonces.clear()
  }

  private async keepFresh(): Promise<void> {
    const { signal } = this.stop
    while (!signal.aborted) {
      await this.world.clock.sleep(leaseRefreshMs, signal).catch(() => {})
      if (signal.aborted) return
      await pool([...this.nonces], 16, async ([id, nonce]) => {
        try {
          await this.world.acquireLease(id, { ttlSeconds: leaseTtlSeconds, nonce })
        } catch (error) {
          // A silent host keeps the lease as it is; only one that went to another is lost.
          if (!isFault(error, 'lease_held') || !this.nonces.has(id)) return
          this.lost = new Fault(
            'lease_held',
            `the lease of machine ${id} went to another while it was being deployed: ${messageOf(error)}`,
          )
        }
      })
    }
  }
}
