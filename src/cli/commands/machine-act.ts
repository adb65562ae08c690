import { Fault } from '#core/fault.ts'
import { parseGoDuration } from '#core/units.ts'
import type { Machine, MachineProcess } from '#spec/machine.ts'
import { humanBytes } from '../age.ts'
import type { Api } from '../api.ts'
import type { Call, Command, Flag } from '../command.ts'
import { aboutApp, jsonFlag } from '../flags.ts'
import { durationFlag } from '../guest.ts'
import { say, sayJson } from '../io.ts'
import { sayTable } from '../table.ts'
import { findMachine, machinePath, waitForMachine } from '../machines.ts'

/** How long a start or restart may take before the command gives up waiting. */
const startTimeoutMs = 5 * 60_000

interface Act {
  api: Api
  app: string
  machine: Machine
  call: Call
}

/** Does one thing to every machine named, one after another. */
function eachMachine(act: (one: Act) => Promise<void>): (call: Call) => Promise<number> {
  return async (call) => {
    const api = call.api()
    const app = await call.appName(call.args[0])
    for (const id of call.args) {
      await act({ api, app, machine: await findMachine(api, app, id), call })
    }
    return 0
  }
}

async function start({ api, app, machine: { id }, call }: Act): Promise<void> {
  const path = `${machinePath(app, id)}/start`
  const { previous_state } = await api.post<{ previous_state: string }>(path, {})
  // One that ran may fall asleep at any moment: nothing was started that could be waited for.
  if (previous_state !== 'started')
    await waitForMachine(api, { app, id, states: ['started'], timeoutMs: startTimeoutMs })
  say(call.io, `${id} has been started`)
}

async function stop({ api, app, machine: { id }, call }: Act): Promise<void> {
  const { io, flags } = call
  const signal = flags.text('signal')
  const timeoutMs = durationFlag(flags, 'timeout', parseGoDuration)
  say(io, `Sending kill signal to machine ${id}...`)
  await api.post(`${machinePath(app, id)}/stop`, {
    id,
    ...(signal ? { signal: fullSignal(signal) } : {}),
    ...(timeoutMs === undefined ? {} : { timeout: `${timeoutMs / 1000}s` }),
  })
  const wait = durationFlag(flags, 'wait-timeout', parseGoDuration)
  if (wait !== undefined && wait > 0) {
    await waitForMachine(api, { app, id, states: ['stopped'], timeoutMs: wait })
  }
  say(io, `${id} has been successfully stopped`)
}

async function restart({ api, app, machine: { id }, call }: Act): Promise<void> {
  const { io, flags } = call
  const query = new URLSearchParams()
  const signal = flags.text('signal')
  const timeoutMs = durationFlag(flags, 'time', parseGoDuration)
  if (signal) query.set('signal', fullSignal(signal))
  if (timeoutMs !== undefined) query.set('timeout', `${timeoutMs / 1000}s`)
  if (flags.on('force')) query.set('force_stop', 'true')
  say(io, `Restarting machine ${id}`)
  await api.post(`${machinePath(app, id)}/restart?${query.toString()}`)
  await waitForMachine(api, { app, id, states: ['started'], timeoutMs: startTimeoutMs })
  say(io, `Machine ${id} restarted successfully!`)
}

async function destroy({ api, app, machine, call }: Act): Promise<void> {
  const { io, flags } = call
  const { id, state } = machine
  const force = flags.on('force')
  // MCH-37; a failed one has nothing that could still run.
  if (!force && !['stopped', 'suspended', 'created', 'failed'].includes(state)) {
    throw new Fault(
      'precondition_failed',
      `machine ${id} is in a ${state} state and cannot be destroyed since it is not stopped or suspended, either stop first or use --force flag`,
    )
  }
  say(io, `machine ${id} was found and is currently in ${state} state, attempting to destroy...`)
  await api.del(`${machinePath(app, id)}?kill=${force}`)
  say(io, `${id} has been destroyed`)
}

const plainPost =
  (verb: string, done: string) =>
  async ({ api, app, machine: { id }, call }: Act): Promise<void> => {
    await api.post(`${machinePath(app, id)}/${verb}`, {})
    say(call.io, `${id} ${done}`)
  }

async function runWait(call: Call): Promise<number> {
  const api = call.api()
  const app = await call.appName(call.args[0])
  const state = call.flags.text('state') ?? 'settled'
  const timeoutMs = durationFlag(call.flags, 'wait-timeout', parseGoDuration) ?? startTimeoutMs
  for (const id of call.args) {
    await waitForMachine(api, { app, id, states: [state], timeoutMs })
    say(call.io, `Machine ${id} reached state ${state}`)
  }
  return 0
}

/** `term` and `15` are `SIGTERM` for people. */
function fullSignal(name: string): string {
  const upper = name.toUpperCase()
  return /^\d+$/.test(upper) || upper.startsWith('SIG') ? upper : `SIG${upper}`
}

async function runPs(call: Call): Promise<number> {
  const api = call.api()
  const app = await call.appName(call.args[0])
  const { id } = await findMachine(api, app, call.args[0] ?? '')
  const processes = await api.get<MachineProcess[]>(`${machinePath(app, id)}/ps`)
  if (call.flags.on('json')) sayJson(call.io, processes)
  else {
    sayTable(call.io, {
      headers: ['PID', 'RSS', 'Listens', 'Command'],
      rows: processes.map(({ pid, rss, listen_sockets, command }) => [
        String(pid),
        humanBytes(rss),
        listen_sockets.map(({ address }) => address).join(' '),
        command,
      ]),
    })
  }
  return 0
}

const signalFlag: Flag = {
  name: 'signal',
  short: 's',
  kind: 'text',
  value: 'NAME',
  summary: 'Signal to stop the machine with (default its own, else SIGINT)',
}
const waitFlag: Flag = {
  name: 'wait-timeout',
  short: 'w',
  kind: 'text',
  value: 'DURATION',
  summary: 'How long to wait; 0s does not wait',
}

const many = { args: 'ID…', argsMin: 1 }

export const machineActs: readonly Command[] = [
  {
    ...many,
    name: 'start',
    summary: 'Start one or more machines',
    flags: aboutApp,
    run: eachMachine(start),
  },
  {
    ...many,
    name: 'stop',
    summary: 'Stop one or more machines',
    flags: [
      ...aboutApp,
      signalFlag,
      {
        name: 'timeout',
        kind: 'text',
        value: 'DURATION',
        summary: 'Time between the signal and the forced end',
      },
      waitFlag,
    ],
    run: eachMachine(stop),
  },
  {
    ...many,
    name: 'restart',
    summary: 'Restart one or more machines',
    flags: [
      ...aboutApp,
      signalFlag,
      {
        name: 'time',
        kind: 'text',
        value: 'DURATION',
        summary: 'Time between the signal and the forced end',
      },
      { name: 'force', kind: 'switch', summary: 'Stop at once' },
      { name: 'skip-health-checks', kind: 'switch', summary: 'Accepted', hidden: true },
    ],
    run: eachMachine(restart),
  },
  {
    ...many,
    name: 'destroy',
    aliases: ['rm', 'remove'],
    summary: 'Destroy one or more machines',
    flags: [
      ...aboutApp,
      { name: 'force', short: 'f', kind: 'switch', summary: 'Destroy it whatever its state is' },
    ],
    run: eachMachine(destroy),
  },
  {
    ...many,
    name: 'suspend',
    summary: 'Suspend one or more machines',
    flags: aboutApp,
    run: eachMachine(plainPost('suspend', 'is being suspended')),
  },
  {
    ...many,
    name: 'cordon',
    summary: 'Take machines out of the routing; they go on running',
    flags: aboutApp,
    run: eachMachine(plainPost('cordon', 'has been cordoned')),
  },
  {
    ...many,
    name: 'uncordon',
    summary: 'Bring cordoned machines back into the routing',
    flags: aboutApp,
    run: eachMachine(plainPost('uncordon', 'has been uncordoned')),
  },
  {
    ...many,
    name: 'wait',
    summary: 'Wait until machines reach a state',
    flags: [
      ...aboutApp,
      {
        name: 'state',
        kind: 'text',
        value: 'STATE',
        summary: 'The state to wait for',
        fallback: 'settled',
      },
      waitFlag,
    ],
    run: runWait,
  },
  {
    name: 'ps',
    summary: 'List the processes of a machine',
    args: 'ID',
    argsMin: 1,
    argsMax: 1,
    flags: [...aboutApp, jsonFlag],
    run: runPs,
  },
]
