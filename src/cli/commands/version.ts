import { readFileSync } from 'node:fs'
import type { Call, Command } from '../command.ts'
import { jsonFlag } from '../flags.ts'
import { say, sayJson } from '../io.ts'

async function runVersion({ io, flags }: Call): Promise<number> {
  const file = new URL('../../../package.json', import.meta.url)
  const { version } = JSON.parse(readFileSync(file, 'utf8')) as { version: string }
  const platform = `${process.platform}/${process.arch}`
  if (flags.on('json')) {
    sayJson(io, { Name: 'hangar', Version: version, Platform: platform, Node: process.version })
  } else {
    say(io, `hangar v${version} ${platform} Node ${process.version}`)
  }
  return 0
}

export const version: Command = {
  name: 'version',
  summary: 'Show version information',
  flags: [jsonFlag],
  run: runVersion,
}
