import { parseArgs } from 'node:util'
import { resolve } from 'node:path'
import { Fault, messageOf } from '#core/fault.ts'
import { systemClock } from '#core/clock.ts'
import { defaultHome, homeAt, type Home } from './home.ts'
import { destroy } from './destroy.ts'
import { openClientNetwork } from './client-network.ts'
import { doctor } from './doctor/index.ts'
import { down } from './down.ts'
import { terminalProgress } from './progress.ts'
import { runSupervisor } from './supervisor.ts'
import { summaryOf } from './summary.ts'
import { overridesSchema, type Overrides } from './state.ts'
import { up } from './up.ts'

export const cloudVerbs = ['up', 'down', 'destroy', 'doctor', 'isolate', 'cloud'] as const
export type CloudVerb = (typeof cloudVerbs)[number]

const help: Record<CloudVerb, string> = {
  up: `hangar up: start the cloud of this machine in the background, or adopt what runs of it

  --home DIR                 its folder (HANGAR_HOME; ${defaultHome})
  --regions CODE,CODE        its regions (--region CODE, again for more, works too)
  --hosts-per-region N       hosts in each region
  --mirror HOST=URL          asked before the registry HOST; again for more
  --autostop-interval MS     how often idle machines are looked for
  --runtime KIND             how machines run: auto, qemu (a VM each) or container (HANGAR_RUNTIME)
  --config FILE              instead of hangar.toml in the home
  --brief                    without the summary at the end

What is given here is kept for the next start. More regions or hosts are added to a cloud that runs; none is taken away.`,
  down: `hangar down: stop everything of this cloud, keep its data

  --home DIR`,
  destroy: `hangar destroy --yes: stop everything of this cloud and remove its data

  --home DIR`,
  doctor: `hangar doctor: what this machine has, what is missing and what that costs

  --home DIR
  --json`,
  isolate: `hangar isolate: make the network in which programs written by "hangar flyctl-wrapper --isolated" run

  --home DIR

The wrappers call it when it is missing; it goes with hangar down.`,
  cloud: `hangar cloud: the supervisor that "hangar up" starts in the background

  --home DIR`,
}

const options = {
  home: { type: 'string' },
  region: { type: 'string', multiple: true },
  regions: { type: 'string' },
  'hosts-per-region': { type: 'string' },
  mirror: { type: 'string', multiple: true },
  'autostop-interval': { type: 'string' },
  runtime: { type: 'string' },
  config: { type: 'string' },
  yes: { type: 'boolean', short: 'y' },
  json: { type: 'boolean' },
  brief: { type: 'boolean' },
  verbose: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const
type Flags = ReturnType<typeof parseArgs<{ options: typeof options }>>['values']

/** The verbs that make and unmake a cloud. Resolves with the exit code; errors are printed. */
export async function main(verb: CloudVerb, argv: readonly string[]): Promise<number> {
  try {
    const { values: flags } = parseArgs({ args: [...argv], options, allowPositionals: false })
    if (flags.help) {
      process.stdout.write(`${help[verb]}\n`)
      return 0
    }
    const home = homeAt(flags.home ?? process.env['HANGAR_HOME'] ?? defaultHome)
    return await verbs[verb](home, flags)
  } catch (error) {
    process.stderr.write(`Error: ${messageOf(error)}\n`)
    if (!(error instanceof Fault) && process.env['HANGAR_LOG'] === 'debug') console.error(error)
    return 1
  }
}

const verbs: Record<CloudVerb, (home: Home, flags: Flags) => Promise<number>> = {
  async up(home, flags) {
    const begun = systemClock.now()
    const progress = terminalProgress()
    const { alreadyRunning } = await up({ home, overrides: overridesFrom(flags), progress })
    const took = ((systemClock.now() - begun) / 1000).toFixed(1)
    progress.note(
      alreadyRunning ? `\nthe cloud in ${home.dir} is running` : `\nthe cloud is up (${took} s)`,
    )
    if (!flags.brief) for (const line of await summaryOf(home)) progress.note(line)
    return 0
  },
  async down(home) {
    const progress = terminalProgress()
    const ran = await down({ home, progress })
    progress.note(ran ? `stopped; the data stays in ${home.dir}` : `nothing runs for ${home.dir}`)
    return 0
  },
  async destroy(home, flags) {
    if (!flags.yes) {
      throw new Fault(
        'bad_request',
        `this removes every app, volume and image in ${home.dir}; to do it: hangar destroy --yes`,
      )
    }
    const progress = terminalProgress()
    const removed = await destroy({ home, progress })
    progress.note(removed ? `${home.dir} is gone` : `there is no ${home.dir}`)
    return 0
  },
  doctor: (home, flags) => doctor({ home, json: flags.json ?? false }),
  async isolate(home) {
    const { netns } = await openClientNetwork(home)
    process.stdout.write(`/run/netns/${netns}\n`)
    return 0
  },
  async cloud(home) {
    await runSupervisor(home)
    return 0
  },
}

/** Only what was given: the rest stays as it is kept. */
export function overridesFrom(flags: Flags, env: NodeJS.ProcessEnv = process.env): Overrides {
  const regions = [...(flags.region ?? []), ...(flags.regions?.split(/[\s,]+/) ?? [])]
  const given = {
    regions: regions.filter(Boolean).length > 0 ? [...new Set(regions.filter(Boolean))] : undefined,
    hosts_per_region: numberFrom('--hosts-per-region', flags['hosts-per-region']),
    autostop_interval_ms: numberFrom('--autostop-interval', flags['autostop-interval']),
    runtime: flags.runtime ?? (env['HANGAR_RUNTIME'] || undefined),
    mirrors: flags.mirror && mirrorsFrom(flags.mirror),
    config_file: flags.config && resolve(flags.config),
    database_url: env['DATABASE_URL'] || undefined,
  }
  const present = Object.entries(given).filter(([, value]) => value !== undefined)
  const parsed = overridesSchema.safeParse(Object.fromEntries(present))
  if (parsed.success) return parsed.data
  const wrong = flags.runtime
    ? `--runtime is "${flags.runtime}"`
    : `HANGAR_RUNTIME is "${given.runtime}"`
  throw new Fault('bad_request', `${wrong}; it is auto, qemu or container`)
}

function numberFrom(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  if (/^\d{1,9}$/.test(text)) return Number(text)
  throw new Fault('bad_request', `${flag} is "${text}"; write a whole number`)
}

function mirrorsFrom(pairs: readonly string[]): Record<string, string[]> {
  const mirrors: Record<string, string[]> = {}
  for (const pair of pairs) {
    const at = pair.indexOf('=')
    const [host, url] = [pair.slice(0, at), pair.slice(at + 1)]
    if (at < 1 || !/^https?:\/\/[^/]/.test(url)) {
      throw new Fault(
        'bad_request',
        `--mirror is "${pair}"; write it like docker.io=http://127.0.0.1:5000`,
      )
    }
    ;(mirrors[host] ??= []).push(url)
  }
  return mirrors
}
