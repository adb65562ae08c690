import { spawn } from 'node:child_process'
import { join, resolve } from 'node:path'
import { createLogger } from '#sys/log.ts'
import type { Driver, StartSpec } from '../driver.ts'
import { openWorkshop } from '../test-support.ts'
import { openQemuDriver, type QemuDriverOptions } from './qemu-driver.ts'
import { vmFolder, vmFolders } from './vm-folder.ts'

export const kernelCacheDir = resolve(import.meta.dirname, '../../../../build/kernel')

/** A folder for the VMs of one host, which drivers have one after another, or a host process of its own. */
export async function openVmShop(name: string) {
  const shop = await openWorkshop()
  const options = {
    dir: join(shop.dir, 'driver'),
    hostId: `${name}-${process.pid}`,
    kernelCacheDir,
  }
  const log = createLogger('test')
  return {
    shop,
    ...options,
    log,
    open: (given: Partial<QemuDriverOptions> = {}) => openQemuDriver({ ...options, log, ...given }),
    folderOf: (id: string) => vmFolder(vmFolders(options.dir), id),
    /** A process that has a `driver` and a `spec`, and does these steps with them. */
    spawnHost: (spec: StartSpec, steps: string) => {
      const script = `
        import { openQemuDriver } from ${JSON.stringify(join(import.meta.dirname, 'qemu-driver.ts'))}
        const { options, spec } = JSON.parse(process.argv[1])
        const log = { debug() {}, info() {}, warn() {}, error() {} }
        const driver = openQemuDriver({ ...options, log })
        ${steps}`
      const argv = ['--input-type=module', '-e', script, JSON.stringify({ options, spec })]
      return spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'inherit'] })
    },
    close: async (driver: Driver) => {
      for (const id of await driver.list()) await driver.destroy(id)
      driver.close()
      await shop.close()
    },
  }
}

/** Another one means another boot. */
export async function bootIdOf(driver: Driver, id: string): Promise<string> {
  const argv = ['cat', '/proc/sys/kernel/random/boot_id']
  return (await driver.exec(id, { argv, timeoutMs: 60_000, outputBytesMax: 1_000 })).stdout
}
