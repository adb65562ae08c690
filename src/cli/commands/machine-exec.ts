import { Fault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import type { ExecResult } from '#spec/machine.ts'
import type { Call, Command } from '../command.ts'
import { aboutApp, jsonFlag } from '../flags.ts'
import { complain, sayJson } from '../io.ts'
import { findMachine, listMachines, machinePath, noneStarted } from '../machines.ts'
import { runProgram } from '../program.ts'

async function runExec(call: Call): Promise<number> {
  const { io, flags, args } = call
  const api = call.api()
  const app = await call.appName(args[0])
  const [first = '', ...rest] = args
  const id =
    rest.length > 0 ? (await findMachine(api, app, first)).id : await onlyMachine(call, app, first)
  const words = rest.length > 0 ? rest : [first]
  const timeout = flags.number('timeout')
  const tty = flags.on('tty')
  if (tty || flags.on('interactive')) {
    const query = {
      ...(words.length === 1 ? { cmd: words[0] ?? '' } : { command: words }),
      ...(timeout === undefined ? {} : { timeout }),
    }
    return runProgram(call, { app, machine: id, query, tty })
  }
  const result = await api.post<ExecResult>(`${machinePath(app, id)}/exec`, {
    // One word is a line for the server to split, as flyctl sends it; several are taken as they are.
    ...(words.length === 1 ? { cmd: words[0] } : { command: words }),
    ...(timeout === undefined ? {} : { timeout }),
  })
  if (flags.on('json')) {
    sayJson(io, result)
    return result.exit_code
  }
  io.stdout.write(result.stdout)
  io.stderr.write(result.stderr)
  const bytes = Math.max(Buffer.byteLength(result.stdout), Buffer.byteLength(result.stderr))
  if (bytes >= limits.execOutputBytesMax) {
    const most = limits.execOutputBytesMax / 1024 / 1024
    complain(
      io,
      `WARN only the first ${most} MB of its output came; all of it with: ${call.path} -i`,
    )
  }
  return result.exit_code
}

/** The machine that a command without an ID means, and what it lacks where there is none. */
async function onlyMachine(call: Call, app: string, word: string): Promise<string> {
  const machines = await listMachines(call.api(), app)
  if (machines.some(({ id }) => id === word)) {
    throw new Fault(
      'bad_request',
      `${word} is a machine; name a command too: ${call.path} ${word} COMMAND`,
    )
  }
  const running = machines.filter(({ state }) => state === 'started')
  if (running.length === 0) throw noneStarted(app, machines)
  if (running.length === 1 && running[0]) return running[0].id
  throw new Fault(
    'bad_request',
    `app ${app} has ${running.length} started machines; name one: ${call.path} ID COMMAND`,
  )
}

export const machineExec: Command = {
  name: 'exec',
  summary: 'Run a command in a machine; ends with its exit code',
  args: '[ID] COMMAND',
  argsMin: 1,
  flags: [
    ...aboutApp,
    jsonFlag,
    {
      name: 'interactive',
      short: 'i',
      kind: 'switch',
      summary: 'Hand on what is piped in, and show output as it comes',
    },
    {
      name: 'tty',
      short: 't',
      kind: 'switch',
      summary: 'With a terminal of its own at ours, as for a shell: -it ID sh',
    },
    { name: 'timeout', kind: 'number', value: 'SECONDS', summary: 'How long it may run' },
  ],
  run: runExec,
}
