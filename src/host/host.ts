import { once } from 'node:events'
import { readFileSync, rmSync, chmodSync, realpathSync } from 'node:fs'
import { createServer as createHttpServer, type Server } from 'node:http'
import { join } from 'node:path'
import { getRequestListener } from '@hono/node-server'
import { systemClock } from '#core/clock.ts'
import { isFault, messageOf } from '#core/fault.ts'
import type { HostRow } from '#spec/roster.ts'
import type { HostSettings } from '#spec/settings.ts'
import { createLogger } from '#sys/log.ts'
import { acceptWebSockets, upgradeOptions } from '#sys/web-socket.ts'
import { openImageStore } from '#host/image/index.ts'
import { openHostNet } from '#host/net/index.ts'
import { openContainerDriver, openQemuDriver, openRuntimes } from '#host/runtime/index.ts'
import { openVolumes } from '#host/volume/index.ts'
import { connectRoster } from '#roster/index.ts'
import { createAgent, type Agent } from './agent.ts'
import { capacityOf, used } from './capacity.ts'
import { startDropWatch } from './dropped.ts'
import { resolvConf } from './guest-files.ts'
import { imagesToKeep } from './images-to-keep.ts'
import { LogSpool } from './logs/index.ts'
import { machineApi } from './machine-api.ts'
import { recoverMachines } from './recover.ts'
import { endRun } from './run.ts'
import { startSchedule } from './schedule.ts'
import { createServer } from './server.ts'
import { openStore, type Store } from './store/index.ts'
import { startUpkeep } from './upkeep.ts'
import { volumeVms } from './volume-vms.ts'
import { recoverVolumes } from './volume-verbs.ts'

/**
 * Runs the host role until SIGTERM or SIGINT, which leave the machines running for the next host process to adopt.
 * @throws Fault when its folder is in use, its runtime cannot work, or its address is taken
 */
export async function runHost(settings: HostSettings): Promise<void> {
  const log = createLogger(`host ${settings.id}`)
  const key = readFileSync(settings.cluster_key_file, 'utf8').trim()
  const store = await openStoreInTime(settings.dir)
  const { agent, closeRoster } = await openAgent(settings, { key, store, log })
  recoverVolumes(agent)
  await recoverMachines(agent)
  const server = await listen(settings.listen, createServer(agent, key).fetch)
  const stopUpkeep = startUpkeep(agent)
  const stopDropWatch = startDropWatch(agent)
  const stopSchedule = startSchedule(agent)
  log.info({ listen: settings.listen, runtime: agent.runtimes.usual ?? 'auto' }, 'host is ready')
  const signal = await Promise.race(
    ['SIGTERM', 'SIGINT'].map((name) => once(process, name).then(() => name)),
  )
  log.info({ signal }, 'host ends; its machines keep running')
  stopUpkeep()
  stopDropWatch()
  stopSchedule()
  server.close()
  server.closeAllConnections()
  agent.mode = 'closed'
  for (const id of agent.runs.keys()) endRun(agent, id)
  await agent.announcer.close()
  agent.edges.close()
  await closeRoster()
  store.close()
  // What watches the running machines would hold this process for as long as they run.
  process.exit(0)
}

const storeWaitMs = 5_000

/** The host process before us may still be on its way out. */
async function openStoreInTime(dir: string): Promise<Store> {
  const deadline = systemClock.now() + storeWaitMs
  for (;;) {
    try {
      return openStore(dir)
    } catch (error) {
      if (!isFault(error, 'conflict') || systemClock.now() > deadline) throw error
      await systemClock.sleep(100)
    }
  }
}

async function openAgent(
  settings: HostSettings,
  parts: { key: string; store: Store; log: ReturnType<typeof createLogger> },
): Promise<{ agent: Agent; closeRoster: () => Promise<void> }> {
  const { store, log } = parts
  const { id, number, region, dir, listen: api } = settings
  const capacity = capacityOf(settings.cpu_overcommit)
  const images = openImageStore({
    dir: join(dir, 'images'),
    mirrors: settings.mirrors,
    registries: settings.registries,
    log,
  })
  const keepImages = () => imagesToKeep(agent)
  const onApi = machineApi(() => agent)
  const container = openContainerDriver({
    dir: join(dir, 'runtime'),
    hostId: id,
    keepImages,
    onApi,
    log,
  })
  const qemu = openQemuDriver({
    dir: join(dir, 'vms'),
    hostId: id,
    kernelCacheDir: settings.kernel_dir,
    onApi,
    onNews: (machine, news) => agent.spool.say(machine, { provider: 'runner', ...news }),
    log,
  })
  const runtimes = openRuntimes({ drivers: { qemu, container }, wish: settings.runtime, log })
  // A host whose runtime does not work still answers for its machines; starts will say what is wrong.
  const known = runtimes.begin()
  // To boot a guest takes seconds, and nobody who starts no machine waits for it.
  if (runtimes.usual === 'container') await known
  const { natsUrl, name } = { natsUrl: settings.nats_url, name: `host ${id}` }
  const roster = await connectRoster({ natsUrl, key: parts.key, name, log })
  const host = (): HostRow => ({
    v: 1,
    host: id,
    number,
    region,
    api,
    counter: store.nextCounter(),
    at: systemClock.now(),
    capacity,
    used: used(agent),
  })
  const agent: Agent = createAgent({
    host: { id, number, region, api, capacity },
    store,
    driver: runtimes.driver,
    runtimes,
    net: await openHostNet({
      hostId: id,
      hostNumber: number,
      ipv4Block: settings.ipv4_block,
      log,
    }),
    images,
    volumes: openVolumes({
      dir: join(dir, 'volumes'),
      snapshotsDir: join(dir, 'snapshots'),
      log,
      vms: volumeVms(() => agent),
    }),
    clusterKey: parts.key,
    announcer: roster.announcer({ region, host }),
    edges: roster.edges({ region }),
    spool: new LogSpool(join(dir, 'logs')),
    clock: systemClock,
    log,
    // By its real path too: that is how the kernel names mounts.
    dirs: [...new Set([dir, realpathSync(dir), settings.kernel_dir])],
    random: Math.random,
    resolvConf,
  })
  return { agent, closeRoster: () => roster.close() }
}

/** Serves on `unix:/path`, in the place of a socket that a killed process left, or on `http://address:port`. */
export async function listen(
  address: string,
  fetch: (request: Request, bindings: object) => Response | Promise<Response>,
): Promise<Server> {
  const answer = getRequestListener(fetch)
  const server = createHttpServer(
    upgradeOptions,
    (request, response) => void answer(request, response),
  )
  acceptWebSockets(server, fetch)
  // Wakes and waits answer late; an idle connection of a role stays open between its calls.
  server.requestTimeout = 0
  server.keepAliveTimeout = 75_000
  if (address.startsWith('unix:')) {
    const path = address.slice('unix:'.length)
    rmSync(path, { force: true })
    server.listen(path)
  } else {
    const { hostname, port } = new URL(address)
    server.listen(Number(port), hostname)
  }
  await once(server, 'listening').catch((error: unknown) => {
    throw new Error(`cannot listen on ${address}: ${messageOf(error)}`, { cause: error })
  })
  if (address.startsWith('unix:')) chmodSync(address.slice('unix:'.length), 0o600)
  return server
}
