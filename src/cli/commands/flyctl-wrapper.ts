import { chmodSync, existsSync, statSync, writeFileSync } from 'node:fs'
import { delimiter, join, resolve } from 'node:path'
import { clientNetworkOf } from '#core/client-network.ts'
import { Fault } from '#core/fault.ts'
import { readJsonFile } from '#sys/files.ts'
import type { Call, Command } from '../command.ts'
import { flyctlProfile, shellWord } from '../flyctl-profile.ts'
import { complain } from '../io.ts'
import { apiUrlOf } from '../place.ts'

const program = join(import.meta.dirname, '../../../bin/hangar.ts')
const pathDefault = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** The flyctl that was named, or the one in PATH, as an absolute path. Fault `not_found`. */
function findFlyctl({ io, flags }: Call, wrapper: string): string {
  const named = flags.text('flyctl')
  const candidates = named
    ? [resolve(io.cwd, named)]
    : (io.env['PATH'] ?? '')
        .split(delimiter)
        .filter((dir) => dir !== '')
        .flatMap((dir) => [join(dir, 'flyctl'), join(dir, 'fly')])
  const found = candidates.find((file) => file !== wrapper && existsSync(file))
  if (found && statSync(found).isFile()) return found
  throw new Fault(
    'not_found',
    named
      ? `there is no program ${named}`
      : 'there is no flyctl in PATH; name one with --flyctl FILE',
  )
}

/** The token stays in its file: the wrapper reads it when it runs, unless its caller brings one. */
function script(call: Call, flyctl: string): string {
  const exports = Object.entries(flyctlProfile(call))
    .map(([name, value]) => `export ${name}=${shellWord(value)}`)
    .join('\n')
  const tokenFile = shellWord(resolve(call.io.cwd, call.home, 'token'))
  return `#!/bin/sh
# Runs flyctl against the Hangar cloud of ${call.home.replaceAll('\n', ' ')}, also where the environment was emptied.
${exports}
if [ -z "\${FLY_ACCESS_TOKEN:-}" ] && [ -z "\${FLY_API_TOKEN:-}" ]; then
  FLY_ACCESS_TOKEN=$(cat ${tokenFile}) || exit 1
  export FLY_ACCESS_TOKEN
fi
export PATH="\${PATH:-${pathDefault}}"
${call.flags.on('isolated') ? isolated(call) : 'exec'} ${shellWord(flyctl)} "$@"
`
}

/**
 * The client's process is the wrapper's own, so signals, streams and the exit code are the client's. A complete network
 * is known by the alias of its link, which costs no process to read; one that is missing is made by `hangar isolate`, once
 * for all who come meanwhile.
 */
function isolated(call: Call): string {
  const { netns, link, mark } = networkOf(call)
  const home = resolve(call.io.cwd, call.home)
  const make = [process.execPath, program, 'isolate', '--home', home]
  return `if [ "$(/usr/bin/id -u)" != 0 ]; then
  echo "Error: $0 runs flyctl in a network namespace, which needs root: sudo $0" >&2
  exit 1
fi
complete() { read -r alias < /sys/class/net/${link}/ifalias && [ "$alias" = ${shellWord(mark)} ]; } 2>/dev/null
complete || (
  /usr/bin/flock 9
  complete || ${make.map(shellWord).join(' ')}
) 9< ${shellWord(join(home, 'run'))} </dev/null >/dev/null || exit 1
exec /usr/bin/nsenter --net=/run/netns/${netns} --`
}

/** Fault `bad_request` when the cloud is not the one of this home and machine: its network could not be entered. */
function networkOf({ io, home }: Call) {
  const { hostname } = new URL(apiUrlOf({ home, env: io.env }))
  if (hostname !== '127.0.0.1' && hostname !== 'localhost') {
    throw new Fault(
      'bad_request',
      `--isolated is for the cloud of this machine, and the API is at ${hostname}; leave it out, or name the home with --home`,
    )
  }
  const state = readJsonFile(join(resolve(io.cwd, home), 'state.json')) as
    | { cloud_id?: unknown }
    | undefined
  const id = state?.cloud_id
  if (typeof id === 'string' && /^[0-9a-f]{4}$/.test(id)) return clientNetworkOf(id)
  throw new Fault(
    'not_found',
    `${home} holds no cloud yet; start one: hangar up (or name it with --home)`,
  )
}

async function runWrapper(call: Call): Promise<number> {
  const file = resolve(call.io.cwd, call.args[0] as string)
  const flyctl = findFlyctl(call, file)
  if (resolve(flyctl) === file) {
    throw new Fault('bad_request', `${file} is flyctl itself; write the wrapper somewhere else`)
  }
  writeFileSync(file, script(call, flyctl))
  chmodSync(file, 0o755)
  complain(call.io, `${file} runs ${flyctl} against this cloud`)
  return 0
}

export const flyctlWrapper: Command = {
  name: 'flyctl-wrapper',
  summary: 'Write a program that runs flyctl against this cloud',
  details:
    'For scripts and test suites that call a program named flyctl with an environment of their own. The token is read ' +
    'from the folder of the cloud each time, unless FLY_ACCESS_TOKEN or FLY_API_TOKEN is set.\n\n' +
    'flyctl asks two addresses that no variable moves: 8.8.8.8 for the name of a deployed app, and the host of its ' +
    'feature flags. With --isolated it runs in a network namespace in which this machine is all there is: ' +
    'names of apps are answered by the cloud, 127.0.0.1 is the one outside, and everything else is refused at once. ' +
    'Needs root when it runs.',
  args: 'FILE',
  argsMin: 1,
  argsMax: 1,
  flags: [
    { name: 'flyctl', kind: 'text', value: 'FILE', summary: 'The flyctl to run; the one in PATH' },
    { name: 'isolated', kind: 'switch', summary: 'Let it reach this machine and nobody else' },
  ],
  run: runWrapper,
}
