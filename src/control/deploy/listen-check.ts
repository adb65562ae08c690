import { Fault } from '#core/fault.ts'
import type { Machine } from '#spec/machine.ts'
import { managedGroup } from './desired.ts'
import type { DeployRun } from './machines.ts'

/** An app is warned after this long without an open port. */
const listenMs = 8_000
/** And fails after this long: the edge holds a request no longer (PRX-36), so nobody would ever be served. */
const deafMs = 60_000

/** LIM-1: a machine has to listen where its services send traffic. A Fault when it does not. */
export async function requireListening(run: DeployRun, machine: Machine): Promise<void> {
  const { world, job } = run
  const group = managedGroup(machine) ?? ''
  for (const port of tcpPorts(machine)) {
    const deadline = world.clock.now() + Math.min(job.waitTimeoutMs, deafMs)
    const soon = Math.min(world.clock.now() + listenMs, deadline)
    let found = await listeners(run, machine.id, { port, deadline: soon })
    if (found !== 'open' && soon < deadline) {
      await world.say(
        'warn',
        `${words({ id: machine.id, group, port, found })}; waiting for it`,
        machine.id,
      )
      found = await listeners(run, machine.id, { port, deadline })
    }
    if (found === 'open') continue
    throw new Fault('precondition_failed', words({ id: machine.id, group, port, found }))
  }
}

/** DEP-8: the immediate strategy waits for nothing, so it only warns, once for each group. */
export async function warnOfDeafPorts(run: DeployRun): Promise<void> {
  const { world } = run
  if (run.launched.size === 0 || run.job.strategy !== 'immediate') return
  const machines = (await world.listMachines()).filter(
    (machine) => run.launched.has(machine.id) && machine.state === 'started',
  )
  const first = new Map(machines.map((machine) => [managedGroup(machine) ?? '', machine]))
  await Promise.all(
    [...first].map(async ([group, machine]) => {
      for (const port of tcpPorts(machine)) {
        const deadline = world.clock.now() + listenMs
        const found = await listeners(run, machine.id, { port, deadline })
        if (found === 'open') continue
        await world.say('warn', words({ id: machine.id, group, port, found }), machine.id)
      }
    }),
  )
}

const tcpPorts = (machine: Machine): Set<number> =>
  new Set(
    (machine.config.services ?? [])
      .filter((service) => service.protocol === 'tcp')
      .map((service) => service.internal_port),
  )

/** `open`, also when the machine cannot tell; otherwise the sockets that there are instead. */
async function listeners(
  run: DeployRun,
  id: string,
  { port, deadline }: { port: number; deadline: number },
): Promise<'open' | readonly string[]> {
  const { world } = run
  for (;;) {
    let sockets: string[]
    try {
      const processes = await world.processes(id)
      if (processes.length === 0) return 'open'
      sockets = processes
        .flatMap((process) => process.listen_sockets)
        .filter((socket) => socket.proto.startsWith('tcp'))
        .map((socket) => socket.address)
    } catch {
      // Without an answer there is nothing to complain of.
      return 'open'
    }
    if (sockets.some((address) => reaches(address, port))) return 'open'
    if (world.clock.now() >= deadline) return sockets
    await world.clock.sleep(250, run.signal)
  }
}

function reaches(address: string, port: number): boolean {
  const cut = address.lastIndexOf(':')
  const host = address.slice(0, cut).replaceAll(/[[\]]/g, '')
  return Number(address.slice(cut + 1)) === port && host !== '::1' && !host.startsWith('127.')
}

function words(of: { id: string; group: string; port: number; found: readonly string[] }): string {
  const seen =
    of.found.length > 0
      ? `it listens on ${[...new Set(of.found)].join(', ')}`
      : 'it listens on no port'
  return `The app is not listening on the expected address: machine ${of.id} [${of.group}] has to listen on 0.0.0.0:${of.port}, and ${seen}. Set internal_port in fly.toml to the app's port, or have the app listen on all addresses and port ${of.port}`
}
