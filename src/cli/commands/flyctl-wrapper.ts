import { chmodSync, existsSync, statSync, writeFileSync } from 'node:fs'
import { delimiter, join, resolve } from 'node:path'
import { Fault } from '#core/fault.ts'
import type { Call, Command } from '../command.ts'
import { flyctlProfile, shellWord } from '../flyctl-profile.ts'
import { complain } from '../io.ts'

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
exec ${shellWord(flyctl)} "$@"
`
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
    'from the folder of the cloud each time, unless FLY_ACCESS_TOKEN or FLY_API_TOKEN is set.',
  args: 'FILE',
  argsMin: 1,
  argsMax: 1,
  flags: [
    { name: 'flyctl', kind: 'text', value: 'FILE', summary: 'The flyctl to run; the one in PATH' },
  ],
  run: runWrapper,
}
