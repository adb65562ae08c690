import { basename } from 'node:path'
import { Fault, isFault } from '#core/fault.ts'
import { generatedName } from '#core/ids.ts'
import { appNameSchema, type App } from '#spec/app.ts'
import type { Api } from './api.ts'
import { appPath } from './apps.ts'
import type { Call } from './command.ts'
import { colorsOf, complain } from './io.ts'
import { nameFromFolder, variantOf, type Choice } from './launch-plan.ts'
import type { LaunchSource } from './launch-source.ts'
import { platformRegions } from './regions.ts'

/** Free names tried before we give up. */
const triesMax = 5

/** `ours` when this token sees an app of that name, `theirs` when somebody else has it. */
export async function whoHas(api: Api, name: string): Promise<'nobody' | 'ours' | 'theirs'> {
  try {
    return (await api.find<App>(appPath(name))) ? 'ours' : 'nobody'
  } catch (error) {
    if (isFault(error) && ['forbidden', 'unauthorized'].includes(error.code)) return 'theirs'
    throw error
  }
}

export function checkName(name: string): string | undefined {
  const result = appNameSchema.safeParse(name)
  return result.success ? undefined : `an app name ${result.error.issues[0]?.message ?? ''}`
}

/** The name of the new app: asked for, generated, that of the configuration, or near to the folder's. */
export async function chooseName(
  { flags }: Call,
  api: Api,
  { folder, source }: { folder: string; source: LaunchSource },
): Promise<Choice> {
  const asked = flags.text('name')
  const written = source.copied?.config.app
  if (flags.on('generate-name') && !asked) return { value: generatedName(), why: 'generated' }
  const fixed = asked ?? written
  if (fixed) {
    const wrong = checkName(fixed)
    if (wrong) throw new Fault('invalid', `"${fixed}": ${wrong}`)
    const has = await whoHas(api, fixed)
    if (has === 'nobody' || (has === 'ours' && flags.on('reuse-app'))) {
      return { value: fixed, why: asked ? 'specified on the command line' : 'from your fly.toml' }
    }
    throw new Fault(
      'name_taken',
      has === 'ours'
        ? `the app ${fixed} exists already; deploy to it with: hangar deploy -a ${fixed}, or launch another with --name or --generate-name`
        : `the name ${fixed} is taken; choose another with --name or --generate-name`,
    )
  }
  return freeName(api, nameFromFolder(basename(folder)))
}

async function freeName(api: Api, wanted: string): Promise<Choice> {
  const base = wanted || generatedName()
  let name = base
  for (let i = 0; i < triesMax; i++) {
    if ((await whoHas(api, name)) === 'nobody') {
      return { value: name, why: 'derived from your directory name' }
    }
    name = variantOf(base, generatedName())
  }
  throw new Fault('name_taken', `no free name near ${base}; choose one with --name`)
}

/** The region of the new app. One that a copied configuration names and this cloud lacks is replaced, and said. */
export async function chooseRegion(
  { io, flags }: Call,
  api: Api,
  source: LaunchSource,
): Promise<{ region: Choice; regionName: string }> {
  const { Regions, Nearest } = await platformRegions(api)
  const nameOf = (code: string) => Regions.find((region) => region.code === code)?.name
  const asked = flags.text('region')
  if (asked !== undefined) {
    const name = nameOf(asked)
    if (name)
      return { region: { value: asked, why: 'specified on the command line' }, regionName: name }
    throw new Fault(
      'not_found',
      `this cloud has no region "${asked}"; it has: ${Regions.map(({ code }) => code).join(', ')}`,
    )
  }
  const written = source.copied?.config.primary_region
  const writtenName = written && nameOf(written)
  if (written && writtenName) {
    return { region: { value: written, why: 'from your fly.toml' }, regionName: writtenName }
  }
  const nearest = Nearest || Regions[0]?.code
  if (!nearest) throw new Fault('not_found', 'the cloud has no region; see: hangar status')
  if (written) {
    complain(
      io,
      `${colorsOf(io).yellow('WARN')} this cloud has no region "${written}", which fly.toml names; using ${nearest}`,
    )
  }
  return {
    region: { value: nearest, why: 'this is the fastest region for you' },
    regionName: nameOf(nearest) ?? nearest,
  }
}
