#!/usr/bin/env node
import { parseArgs } from 'node:util'

// Each command loads only its own rooms: a quick `hangar status` must not pay for a host.
const given = process.argv.slice(2)
// `hangar --home DIR up` is `hangar up --home DIR`.
const turned = given[0] === '--home' ? [...given.slice(2), ...given.slice(0, 2)] : given
const [verb = '', ...rest] = turned

if (verb === 'host' || verb === 'edge' || verb === 'control') {
  const { runRole } = await import('./role.ts')
  await runRole(verb, parseArgs({ args: rest, options: { settings: { type: 'string' } } }).values)
} else if (['up', 'down', 'destroy', 'doctor', 'isolate', 'cloud'].includes(verb)) {
  const { main, cloudVerbs } = await import('#cloud/index.ts')
  const known = cloudVerbs.find((name) => name === verb)
  process.exitCode = known ? await main(known, rest) : 1
} else {
  const { main } = await import('#cli/index.ts')
  const code = await main(given)
  // A slow reader at the other end of a pipe still waits for what we hold; to leave now would cut it silently.
  const written = (stream: NodeJS.WriteStream) =>
    new Promise<void>((resolve) => stream.write('', () => resolve()))
  await Promise.all([written(process.stdout), written(process.stderr)])
  process.exit(code)
}
