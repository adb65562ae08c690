import type { DeployRun } from './machines.ts'
import { managedGroup } from './desired.ts'

/** An app gets this long to open its port before it is warned about. */
const listenMs = 8_000

/** DEP-8, LIM-1: warns, once for each group, when nobody listens where the service sends traffic. */
export async function warnOfDeafPorts(run: DeployRun): Promise<void> {
  const { world } = run
  if (run.launched.size === 0) return
  const machines = (await world.listMachines()).filter(
    (machine) => run.launched.has(machine.id) && machine.state === 'started',
  )
  const first = new Map(machines.map((machine) => [managedGroup(machine) ?? '', machine]))
  await Promise.all(
    [...first].map(async ([group, machine]) => {
      const ports = (machine.config.services ?? [])
        .filter((service) => service.protocol === 'tcp')
        .map((service) => service.internal_port)
      for (const port of new Set(ports)) {
        const found = await listeners(run, machine.id, port)
        if (found === 'open') continue
        await world.say('warn', warning({ id: machine.id, group, port, found }), machine.id)
      }
    }),
  )
}

/** `open`, also when the machine cannot tell; otherwise the sockets that there are instead. */
async function listeners(
  run: DeployRun,
  id: string,
  port: number,
): Promise<'open' | readonly string[]> {
  const { world } = run
  const deadline = world.clock.now() + listenMs
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
      // Without an answer there is nothing to warn of.
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

function warning(of: {
  id: string
  group: string
  port: number
  found: readonly string[]
}): string {
  const seen =
    of.found.length > 0
      ? `it listens on ${[...new Set(of.found)].join(', ')}`
      : 'it listens on no port'
  return `The app is not listening on the expected address: machine ${of.id} [${of.group}] has to listen on 0.0.0.0:${of.port}, and ${seen}. Set internal_port in fly.toml to the app's port, or have the app listen on all addresses and port ${of.port}`
}
