import type { Call, Command } from '../command.ts'
import { aboutApp } from '../flags.ts'
import { complain } from '../io.ts'
import { findMachine, listMachines, noneStarted } from '../machines.ts'
import { runProgram } from '../program.ts'

/** The better of the shells that an image may have. */
const shell = ['sh', '-c', 'command -v bash > /dev/null && exec bash -l; exec sh -l']

async function runConsole(call: Call): Promise<number> {
  const { io, flags } = call
  const app = await call.appName()
  const machine = await chooseMachine(call, app)
  const cmd = flags.text('command')
  const tty = flags.on('pty', cmd === undefined && io.terminal !== undefined)
  const query = cmd === undefined ? { command: shell } : { cmd }
  return runProgram(call, { app, machine, query, tty })
}

async function chooseMachine(call: Call, app: string): Promise<string> {
  const named = call.flags.text('machine')
  if (named) return (await findMachine(call.api(), app, named)).id
  const machines = await listMachines(call.api(), app)
  const started = machines.filter(({ state }) => state === 'started')
  const [first] = started
  if (!first) throw noneStarted(app, machines)
  if (started.length > 1) {
    complain(call.io, `Machine ${first.id} of ${started.length}; another one with --machine ID`)
  }
  return first.id
}

const consoleCommand: Command = {
  name: 'console',
  summary: 'Open a shell in a started machine, or run a command there',
  details:
    'Open a shell in a started machine of the app, or run a command there, through the API of the cloud: no SSH and no tunnel is used.',
  flags: [
    ...aboutApp,
    { name: 'command', short: 'C', kind: 'text', value: 'LINE', summary: 'Run this, not a shell' },
    { name: 'machine', kind: 'text', value: 'ID', summary: 'The machine' },
    { name: 'pty', kind: 'switch', summary: 'With a terminal, also for a command' },
  ],
  run: runConsole,
}

export const ssh: Command = {
  name: 'ssh',
  summary: 'Open a shell in a machine',
  commands: [consoleCommand],
}
