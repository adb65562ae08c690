import { Fault } from '#core/fault.ts'
import { connectApi, type Api } from './api.ts'
import type { ParsedArguments } from './arguments.ts'
import { findAppName } from './app-config.ts'
import type { Call, Command } from './command.ts'
import type { Io } from './io.ts'
import { appOfMachine } from './machines.ts'
import { apiUrlOf, findToken, homeOf } from './place.ts'

/** Puts together what a command gets, after the number of its arguments was checked. */
export function makeCall(options: {
  io: Io
  path: string
  command: Command
  parsed: ParsedArguments
}): Call {
  const { io, path, command, parsed } = options
  checkArgumentCount(command, path, parsed.args.length)
  const { flags } = parsed
  const home = homeOf(flags.text('home'), io.env)
  const { env } = io
  let opened: Api | undefined
  const api = () =>
    (opened ??= connectApi(
      {
        api: apiUrlOf({ home, env }),
        token: findToken({ home, env, token: flags.text('access-token') }),
      },
      io.signal,
    ))
  const aboutApp = command.flags?.some(({ name }) => name === 'app')
  return {
    io,
    path,
    args: parsed.args,
    flags,
    home,
    api,
    appName: async (machine) => {
      const found = aboutApp
        ? await findAppName({
            cwd: io.cwd,
            flag: flags.text('app'),
            config: flags.text('config'),
            env: io.env,
          })
        : undefined
      const app = found ?? (machine && (await appOfMachine(api(), machine)))
      if (app) return app
      throw new Fault(
        'bad_request',
        'the config for your app is missing an app name: give -a NAME, or run in a folder whose fly.toml has an app',
      )
    },
  }
}

function checkArgumentCount(command: Command, path: string, count: number): void {
  const min = command.argsMin ?? 0
  const max = command.argsMax ?? (command.args ? Number.POSITIVE_INFINITY : 0)
  const usage = `Usage: ${path} ${command.args ?? ''}`.trimEnd()
  if (count < min) {
    const needs = min === 1 ? 'an argument' : `${min} arguments`
    throw new Fault('bad_request', `${path} needs ${needs}\n${usage}`)
  }
  if (count > max) {
    const takes = max === 0 ? 'no arguments' : `at most ${max} argument${max === 1 ? '' : 's'}`
    throw new Fault('bad_request', `${path} takes ${takes}, not ${count}\n${usage}`)
  }
}
