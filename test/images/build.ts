import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { gunzipSync } from 'node:zlib'
import { processStartTime } from '#sys/process.ts'
import { createPusher, layer, type LayerInput } from './push.ts'
import { recipes, type Recipe } from './recipes.ts'
import { startImageRegistry, type ImageRegistry } from './registry.ts'

/**
 * `node test/images/build.ts [names…] [--cache DIR] [--serve PORT]` builds images that stand in for public ones and,
 * with --serve, serves them as the mirror of docker.io would. What is in the cache already is not built again.
 */

export const defaultCache = (): string =>
  process.env['HANGAR_TEST_CACHE'] ?? '/var/cache/hangar-test-images'

export interface BuildOptions {
  /** Which images, by the names of the recipes; all of them when empty. Their bases are built with them. */
  names?: readonly string[]
  cache?: string
  say?: (line: string) => void
}

function recipeOf(name: string): Recipe {
  const recipe = recipes[name]
  if (recipe) return recipe
  throw new Error(`no image is called "${name}"; there are: ${Object.keys(recipes).join(', ')}`)
}

/** Changes with anything that the image is made from. */
function keyOf(name: string): string {
  const recipe = recipeOf(name)
  const hash = createHash('sha256')
  for (const file of ['debian.ts', 'busybox.ts', 'push.ts']) {
    hash.update(readFileSync(new URL(file, import.meta.url)))
  }
  const { repository, tags, config } = recipe
  hash.update(JSON.stringify([repository, tags, config, process.arch, recipe.inputs()]))
  hash.update(recipe.layer.toString())
  hash.update(recipe.from ? keyOf(recipe.from) : '')
  return hash.digest('hex').slice(0, 16)
}

/** Bases before what stands on them, each once. */
function ordered(names: readonly string[]): string[] {
  const order = new Set<string>()
  for (const name of names) {
    const base = recipeOf(name).from
    if (base) for (const each of ordered([base])) order.add(each)
    order.add(name)
  }
  return [...order]
}

/** One builder at a time for each cache; a builder that died leaves a lock that the next one takes over. */
async function withLock<T>(cache: string, work: () => Promise<T>): Promise<T> {
  const path = join(cache, 'lock')
  const mine = `${process.pid} ${processStartTime(process.pid)}`
  for (;;) {
    try {
      writeFileSync(path, mine, { flag: 'wx' })
      break
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
      const [pid, startTime] = (existsSync(path) ? readFileSync(path, 'utf8') : '').split(' ')
      if (pid && processStartTime(Number(pid)) !== Number(startTime)) rmSync(path, { force: true })
      else await sleep(200)
    }
  }
  try {
    return await work()
  } finally {
    rmSync(path, { force: true })
  }
}

interface Workshop {
  cache: string
  registry: ImageRegistry
  say: (line: string) => void
}

const layerFile = (cache: string, name: string): string =>
  join(cache, `${name}-${keyOf(name)}.tar.gz`)

/** The layers of an image, the lowest first; the recipe's own is made when the cache lacks it. */
function layersOf(name: string, cache: string): LayerInput[] {
  const recipe = recipeOf(name)
  const lower = recipe.from ? layersOf(recipe.from, cache) : []
  const file = layerFile(cache, name)
  if (existsSync(file)) {
    return [...lower, { mediaType: layer(Buffer.alloc(0)).mediaType, bytes: readFileSync(file) }]
  }
  const base = lower.at(-1)
  const own = layer(recipe.layer(base ? gunzipSync(base.bytes) : Buffer.alloc(0)))
  // Only what others stand on is worth keeping beside the registry's own copy.
  if (Object.values(recipes).some((each) => each.from === name)) writeFileSync(file, own.bytes)
  return [...lower, own]
}

async function buildOne(name: string, workshop: Workshop): Promise<void> {
  const recipe = recipeOf(name)
  const marker = join(workshop.cache, `${name}-${keyOf(name)}.done`)
  if (existsSync(marker)) return
  const startedAt = performance.now()
  for (const old of readdirSync(workshop.cache)) {
    const stale = old.startsWith(`${name}-`) && !old.includes(keyOf(name))
    if (stale) rmSync(join(workshop.cache, old), { force: true })
  }
  const layers = layersOf(name, workshop.cache)
  const pusher = createPusher(workshop.registry.url)
  for (const tag of recipe.tags) {
    await pusher.image(recipe.repository, tag, { layers, config: recipe.config })
  }
  writeFileSync(marker, '')
  const megabytes = layers.reduce((sum, each) => sum + each.bytes.length, 0) / 1e6
  const seconds = (performance.now() - startedAt) / 1000
  workshop.say(`${recipe.repository}: ${megabytes.toFixed(1)} MB in ${seconds.toFixed(1)} s`)
}

/** Builds what is missing; the registry storage to serve it from. */
export async function buildImages(options: BuildOptions = {}): Promise<{ dir: string }> {
  const cache = options.cache ?? defaultCache()
  const names = options.names?.length ? options.names : Object.keys(recipes)
  const say = options.say ?? (() => {})
  const dir = join(cache, 'registry')
  mkdirSync(cache, { recursive: true })
  const missing = () =>
    ordered(names).filter((name) => !existsSync(join(cache, `${name}-${keyOf(name)}.done`)))
  if (missing().length === 0) return { dir }
  await withLock(cache, async () => {
    const registry = await startImageRegistry({ dir })
    try {
      for (const name of missing()) await buildOne(name, { cache, registry, say })
    } finally {
      await registry.close()
    }
  })
  return { dir }
}

/** Builds what is missing and serves it: use `mirrors: {'docker.io': [url]}`. */
export async function startTestImages(
  options: BuildOptions & { port?: number } = {},
): Promise<ImageRegistry> {
  const { dir } = await buildImages(options)
  return startImageRegistry({ dir, ...(options.port === undefined ? {} : { port: options.port }) })
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { cache: { type: 'string' }, serve: { type: 'string' } },
  })
  const options: BuildOptions = {
    names: positionals,
    say: (line) => process.stderr.write(`${line}\n`),
    ...(values.cache === undefined ? {} : { cache: values.cache }),
  }
  if (values.serve === undefined) {
    const { dir } = await buildImages(options)
    process.stdout.write(`${dir}\n`)
    return
  }
  const registry = await startTestImages({ ...options, port: Number(values.serve) })
  process.stdout.write(`${registry.url}\n`)
  await new Promise<void>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve())
  })
  await registry.close()
}

if (import.meta.main) await main()
