import { Fault } from '#core/fault.ts'
import type { RuntimeKind } from '#spec/runtime.ts'
import type { Driver, MachineVerbs } from './driver.ts'

/** One that cannot be asked is not taken for gone: a VM's snapshot outlives a QEMU that does not work. */
async function runs(driver: Driver, id: string): Promise<boolean> {
  try {
    return (await driver.recover(id)) === 'running'
  } catch {
    return true
  }
}

export type Drivers = Partial<Record<RuntimeKind, Driver>>

/**
 * The drivers of one host behind the verbs of one: each verb goes to the driver that has the machine, and a start to the
 * one that its spec names. A machine is with one driver at a time: it is gone from the other before it is started here.
 */
export function composeDrivers(drivers: Drivers): MachineVerbs {
  const all = Object.entries(drivers) as [RuntimeKind, Driver][]
  let owners: Promise<Map<string, Driver>> | undefined

  /** What is on disk is read once: from then on a machine moves only through us. */
  async function readOwners(): Promise<Map<string, Driver>> {
    const lists = all.map(async ([, driver]) => (await driver.list()).map((id) => [id, driver]))
    const known = (await Promise.all(lists)).flat() as [string, Driver][]
    const found = new Map<string, Driver>()
    for (const [id, driver] of known) {
      const other = found.get(id)
      // A change of runtime that was cut short: what runs is kept.
      const otherRuns = other && (await runs(other, id))
      if (other) await (otherRuns ? driver : other).destroy(id)
      if (!otherRuns) found.set(id, driver)
    }
    return found
  }

  async function ownersNow(): Promise<Map<string, Driver>> {
    owners ??= readOwners()
    try {
      return await owners
    } catch (error) {
      owners = undefined
      throw error
    }
  }

  const find = async (id: string): Promise<Driver | undefined> => (await ownersNow()).get(id)

  async function get(id: string): Promise<Driver> {
    const driver = await find(id)
    if (driver) return driver
    throw new Fault('precondition_failed', `machine ${id} is not running`)
  }

  function named(kind: RuntimeKind | undefined): Driver {
    const driver = kind ? drivers[kind] : all[0]?.[1]
    if (driver) return driver
    throw new Fault('native_failed', `this host has no runtime ${kind ?? ''}`)
  }

  return {
    async start(spec, netReady) {
      const driver = named(spec.runtime)
      const known = await ownersNow()
      const before = known.get(spec.id)
      if (before && before !== driver) await before.destroy(spec.id)
      known.set(spec.id, driver)
      await driver.start(spec, netReady)
    },
    recover: async (id) => (await find(id))?.recover(id),
    async exited(id) {
      const driver = await find(id)
      if (!driver) throw new Fault('not_found', `no machine ${id} was started on this host`)
      return driver.exited(id)
    },
    signal: async (id, signal) => (await (await find(id))?.signal(id, signal)) ?? false,
    exec: async (id, request) => (await get(id)).exec(id, request),
    openProgram: async (id, request) => (await get(id)).openProgram(id, request),
    ps: async (id) => (await (await find(id))?.ps(id)) ?? [],
    suspend: async (id, signal) => (await get(id)).suspend(id, signal),
    resume: async (id, netReady) => (await get(id)).resume(id, netReady),
    async still(id, action) {
      const driver = await find(id)
      return driver?.still ? driver.still(id, action) : action()
    },
    grow: async (id, source) => (await (await find(id))?.grow?.(id, source)) ?? true,
    usage: async (id, source) => (await find(id))?.usage?.(id, source),
    stats: async (id) => (await find(id))?.stats(id),
    spoofed: async (id) => (await (await find(id))?.spoofed?.(id)) ?? 0,
    async destroy(id, options) {
      const known = await ownersNow()
      const driver = known.get(id)
      // What no driver knows may still have left a trace.
      for (const one of driver ? [driver] : Object.values(drivers)) await one.destroy(id, options)
      if (!options?.keepRoot) known.delete(id)
    },
    async releaseUnused() {
      for (const [, driver] of all) await driver.releaseUnused()
    },
    list: async () => [...(await ownersNow()).keys()],
    close: () => all.forEach(([, driver]) => driver.close()),
  }
}
