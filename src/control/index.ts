import { systemClock } from '#core/clock.ts'
import { Fault, messageOf } from '#core/fault.ts'
import { connectRoster } from '#roster/index.ts'
import type { ControlSettings } from '#spec/settings.ts'
import { readTextFile } from '#sys/files.ts'
import { createLogger } from '#sys/log.ts'
import { ensureFirstToken } from './auth/index.ts'
import { discardOldBuilds } from './build/index.ts'
import type { ControlContext } from './context.ts'
import { ClientContacts, resumeDeploys } from './deploy/index.ts'
import { openHostDirectory, watchHosts } from './hosts/index.ts'
import { startJanitor } from './janitor.ts'
import { ensureNetwork, ensureOrg, personalSlug } from './orgs/index.ts'
import { connectDatabase, loadSecretBox } from './store/index.ts'

export type { ControlContext } from './context.ts'

/** Opens the role's doors on `settings.listen`; resolves when they are open. */
export type Serve = (ctx: ControlContext) => Promise<{ close(): Promise<void> }>

export interface Control {
  ctx: ControlContext
  close(): Promise<void>
}

/**
 * Starts the control role: database, roster watch, janitor, doors; resolves when requests are answered. Needs the database;
 * does not need the bus, nor any host.
 */
export async function startControl(settings: ControlSettings, serve: Serve): Promise<Control> {
  const log = createLogger('control')
  const clusterKey = readTextFile(settings.cluster_key_file)?.trim()
  if (!clusterKey) {
    throw new Fault(
      'native_failed',
      `no cluster key in ${settings.cluster_key_file}; run: hangar up`,
    )
  }
  const db = await connectDatabase(settings.database_url, log)
  const stop = new AbortController()
  const clock = systemClock
  const ctx: ControlContext = {
    db,
    settings,
    log,
    clock,
    hosts: await openHostDirectory({ db, clock, log }),
    clients: new ClientContacts(clock),
    clusterKey,
    secretBox: loadSecretBox(settings.dir),
    stopping: stop.signal,
  }
  const personal = await ensureOrg(ctx, personalSlug, 'Personal')
  await ensureNetwork(ctx, personal.id, 'default')
  await ensureFirstToken(ctx)
  await discardOldBuilds(ctx)
  const roster = await connectRoster({
    natsUrl: settings.nats_url,
    key: clusterKey,
    name: 'control',
    log,
  })
  const watch = roster.watch({
    regions: settings.regions,
    onRow: (row) => ctx.hosts.noteMachine(row),
    onForget: ({ id }) => ctx.hosts.forgetMachine(id),
    onHost: (row) => ctx.hosts.note(row),
  })
  const hostWatch = watchHosts(ctx)
  const doors = await serve(ctx)
  const janitor = startJanitor(ctx)
  await resumeDeploys(ctx)
  const { address, port } = settings.listen
  log.info({ address, port }, 'control serves')
  return {
    ctx,
    close: async () => {
      stop.abort(new Fault('not_available_yet', 'control is stopping; try again in a moment'))
      watch.close()
      await doors.close()
      await Promise.all([janitor, hostWatch])
      await roster.close()
      await db.destroy()
    },
  }
}

/** Runs the role until the process is told to stop, and ends the process. */
export async function runControl(settings: ControlSettings, serve: Serve): Promise<void> {
  const control = await startControl(settings, serve)
  await new Promise<void>((resolve) => {
    process.once('SIGTERM', resolve)
    process.once('SIGINT', resolve)
  })
  await control.close().catch((error: unknown) => {
    control.ctx.log.error({ error: messageOf(error) }, 'control did not stop cleanly')
  })
  // Whatever still waits, such as a bus that was never reached, is not worth staying for.
  process.exit(0)
}
