import { Fault } from '#core/fault.ts'
import type { Lease, Machine, MachineInput } from '#spec/machine.ts'
import { leaseNonceHeader } from '#spec/machine.ts'
import { part } from '../api.ts'
import type { Call, Command } from '../command.ts'
import { aboutApp, imageFlag, jsonFlag, regionFlag, yesFlag } from '../flags.ts'
import { say, sayJson } from '../io.ts'
import { applyMachineFlags, machineConfigFlags } from '../machine-input.ts'
import { findMachine, machinePath, waitForMachine } from '../machines.ts'

const waitMs = 5 * 60_000

async function runClone(call: Call): Promise<number> {
  const { io, flags, args } = call
  const api = call.api()
  const app = await call.appName(args[0])
  const source = await findMachine(api, app, args[0] ?? '')
  if (source.config.mounts?.length) {
    throw new Fault(
      'bad_request',
      `machine ${source.id} has a volume; use hangar scale count, which gives each new machine one`,
    )
  }
  const region = flags.text('region') ?? source.region
  say(io, `Cloning Machine ${source.id} into region ${region}`)
  const name = flags.text('name')
  const { standbys: _standbys, ...config } = source.config
  const machine = await api.post<Machine>(`/v1/apps/${part(app)}/machines`, {
    config,
    region,
    ...(name ? { name } : {}),
  } satisfies MachineInput)
  say(io, `  Machine ${machine.id} has been created...`)
  say(io, `  Waiting for Machine ${machine.id} to start...`)
  await waitForMachine(api, { app, id: machine.id, states: ['started'], timeoutMs: waitMs })
  say(io, 'Machine has been successfully cloned!')
  return 0
}

async function runUpdate(call: Call): Promise<number> {
  const { io, flags, args } = call
  const api = call.api()
  const app = await call.appName(args[0])
  const machine = await findMachine(api, app, args[0] ?? '')
  const image = flags.text('image')
  const changed = applyMachineFlags({ ...machine.config, ...(image ? { image } : {}) }, flags)
  // MCH-31: a machine that is asleep stays asleep.
  const asleep = !['started', 'starting', 'failed'].includes(machine.state)
  say(io, `Updating machine ${machine.id}`)
  const path = machinePath(app, machine.id)
  const lease = await api.post<{ data: Lease }>(`${path}/lease?ttl=120`)
  const nonce = { [leaseNonceHeader]: lease.data.nonce }
  try {
    await api.post<Machine>(
      path,
      {
        config: changed,
        current_version: machine.instance_id,
        ...(asleep || flags.on('skip-start') ? { skip_launch: true } : {}),
      } satisfies MachineInput,
      nonce,
    )
  } finally {
    await api.del(`${path}/lease`, nonce)
  }
  await waitForMachine(api, { app, id: machine.id, states: ['settled'], timeoutMs: waitMs })
  say(io, `Machine ${machine.id} updated successfully!`)
  return 0
}

async function runLease(call: Call): Promise<number> {
  const { io, flags, args } = call
  const api = call.api()
  const app = await call.appName(args[0])
  const { id } = await findMachine(api, app, args[0] ?? '')
  const lease = await api.find<{ data: Lease }>(`${machinePath(app, id)}/lease`)
  if (!lease) say(io, 'No leases found')
  else if (flags.on('json')) sayJson(io, lease.data)
  else {
    const until = new Date(lease.data.expires_at * 1000).toISOString()
    say(io, `${id} is leased by ${lease.data.owner} until ${until}: ${lease.data.description}`)
  }
  return 0
}

export const machineChanges: readonly Command[] = [
  {
    name: 'clone',
    summary: 'Clone a machine',
    args: 'ID',
    argsMin: 1,
    argsMax: 1,
    flags: [
      ...aboutApp,
      regionFlag,
      { name: 'name', kind: 'text', value: 'NAME', summary: 'Name of the new machine' },
    ],
    run: runClone,
  },
  {
    name: 'update',
    summary: 'Update a machine',
    args: 'ID',
    argsMin: 1,
    argsMax: 1,
    flags: [
      ...aboutApp,
      imageFlag,
      yesFlag,
      { name: 'skip-start', kind: 'switch', summary: 'Update without starting it' },
      ...machineConfigFlags,
    ],
    run: runUpdate,
  },
  {
    name: 'leases',
    aliases: ['lease'],
    summary: 'Show who holds machines',
    commands: [
      {
        name: 'view',
        summary: 'Show the lease of a machine',
        args: 'ID',
        argsMin: 1,
        argsMax: 1,
        flags: [...aboutApp, jsonFlag],
        run: runLease,
      },
    ],
  },
]
