import { Fault } from '#core/fault.ts'
import type { Machine, MachineInput } from '#spec/machine.ts'
import type { MachineConfig } from '#spec/machine-config.ts'
import type { Volume } from '#spec/volume.ts'
import { part, type Api } from '../api.ts'
import { getApp } from '../apps.ts'
import type { Call, Command, Flag } from '../command.ts'
import { aboutApp, detachFlag, jsonFlag, regionFlag } from '../flags.ts'
import { say, sayJson } from '../io.ts'
import { applyMachineFlags, machineConfigFlags } from '../machine-input.ts'
import { machinePath, waitForMachine } from '../machines.ts'

const startTimeoutMs = 5 * 60_000

const runFlags: readonly Flag[] = [
  ...aboutApp,
  jsonFlag,
  regionFlag,
  detachFlag,
  {
    name: 'name',
    short: 'n',
    kind: 'text',
    value: 'NAME',
    summary: 'Machine name; generated when left out',
  },
  { name: 'rm', kind: 'switch', summary: 'Destroy it when it exits' },
  {
    name: 'volume',
    short: 'v',
    kind: 'list',
    value: 'VOLUME:/PATH',
    summary: 'Mount a volume, by id or name',
  },
  ...machineConfigFlags,
]

/** MCH-76: a machine of its own is restarted always, one that is removed never, a scheduled one on failure. */
function restartDefault(call: Call): 'always' | 'no' | 'on-failure' {
  if (call.flags.on('rm')) return 'no'
  return call.flags.text('schedule') === undefined ? 'always' : 'on-failure'
}

async function configOf(call: Call, api: Api, app: string): Promise<MachineConfig> {
  const { flags, args } = call
  const [image = '', ...command] = args
  const mounts = await mountsOf(call, api, app)
  return applyMachineFlags(
    {
      image,
      ...(command.length > 0 ? { init: { cmd: command } } : {}),
      restart: { policy: restartDefault(call) },
      ...(flags.on('rm') ? { auto_destroy: true } : {}),
      ...(mounts.length > 0 ? { mounts } : {}),
    },
    flags,
  )
}

async function mountsOf(
  { flags }: Call,
  api: Api,
  app: string,
): Promise<{ volume: string; path: string }[]> {
  const mounts: { volume: string; path: string }[] = []
  for (const spec of flags.texts('volume')) {
    const [wanted = '', path = ''] = spec.split(':')
    if (!wanted || !path.startsWith('/')) {
      throw new Fault('bad_request', `--volume "${spec}" is not VOLUME:/path/in/the/machine`)
    }
    const volumes = await api.get<Volume[]>(`/v1/apps/${part(app)}/volumes`)
    const free = volumes.find(
      ({ id, name, attached_machine_id, state }) =>
        id === wanted || (name === wanted && state === 'created' && !attached_machine_id),
    )
    if (!free) {
      throw new Fault(
        'not_found',
        `app ${app} has no free volume "${wanted}"; create one with: hangar volumes create ${wanted} -a ${app}`,
      )
    }
    mounts.push({ volume: free.id, path })
  }
  return mounts
}

async function launch(call: Call, skipLaunch: boolean): Promise<number> {
  const { io, flags } = call
  const api = call.api()
  const app = await call.appName()
  await getApp(api, app)
  const config = await configOf(call, api, app)
  const name = flags.text('name')
  const region = flags.text('region')
  const machine = await api.post<Machine>(`/v1/apps/${part(app)}/machines`, {
    config,
    ...(name ? { name } : {}),
    ...(region ? { region } : {}),
    ...(skipLaunch ? { skip_launch: true } : {}),
  } satisfies MachineInput)
  const { id } = machine
  const quiet = flags.on('json')
  if (!quiet) {
    const verb = skipLaunch ? 'created' : 'launched'
    say(io, `Success! A Machine has been successfully ${verb} in app ${app}`)
    say(io, ` Machine ID: ${id}`)
    say(io, ` Instance ID: ${machine.instance_id}`)
    say(io, ` State: ${machine.state}`)
  }
  if (!skipLaunch && !flags.on('detach')) {
    if (!quiet) say(io, '\n Attempting to start machine...\n')
    // One that ends at once is no failure: a job that is done.
    await waitForMachine(api, {
      app,
      id,
      states: ['started', 'stopped', 'destroyed'],
      timeoutMs: startTimeoutMs,
    })
    if (!quiet) {
      say(io, 'Machine started, you can connect via the following private ip')
      say(io, `  ${machine.private_ip}`)
    }
  }
  if (quiet) sayJson(io, (await api.find<Machine>(machinePath(app, id))) ?? machine)
  return 0
}

export const machineRun: Command = {
  name: 'run',
  summary: 'Run a machine',
  details:
    'Create a machine from an image and start it. Flags for the command of the machine stand after --: hangar machine run IMAGE -- sh -c "…"',
  args: 'IMAGE [COMMAND…]',
  argsMin: 1,
  flags: runFlags,
  run: (call) => launch(call, false),
}

export const machineCreate: Command = {
  name: 'create',
  summary: "Create, but don't start, a machine",
  args: 'IMAGE [COMMAND…]',
  argsMin: 1,
  flags: runFlags,
  run: (call) => launch(call, true),
}
