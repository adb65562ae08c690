import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { Fault, isFault, messageOf } from '#core/fault.ts'
import { ulid } from '#core/ids.ts'
import { buildInputSchema, type BuildInput } from '#spec/build.ts'
import type { AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { runnerLives, thisRunner } from '../runner.ts'
import type { BuildStatus } from '../store/index.ts'
import { docker } from './docker.ts'
import { BuildStory, visibleLine } from './docker-output.ts'
import { describePushed, type BuiltImage } from './registry-image.ts'
import { mintBuildPassword } from './registry-token.ts'
import { openSlots } from './slots.ts'
import { makeWorkDir, readFromContext, spoolContext, type WorkDir } from './work-dir.ts'

export type BuildLine =
  | { level: 'log' | 'error'; message: string }
  | { status: 'complete'; image: BuiltImage }
  | { status: 'failed'; error: string }

/** A build that waits for its context. */
export interface Build {
  id: string
  app: AppRecord
  input: BuildInput
}

/** Builds at once, over all apps: each may use every core. */
const slots = openSlots(2)
const buildMsMax = 60 * 60_000
const waitingMax = 100

/** Between the two requests of a build its input, and with it its secrets, is here alone. SEC-9. */
const waiting = new Map<string, Build>()

/** First half of a build. Faults: `invalid`, `limit_reached`. */
export async function createBuild(
  ctx: ControlContext,
  app: AppRecord,
  raw: unknown,
): Promise<{ id: string }> {
  const parsed = buildInputSchema.safeParse(raw)
  if (!parsed.success) {
    const issue = parsed.error.issues[0]
    throw new Fault('invalid', `${issue?.path.join('.')}: ${issue?.message}`)
  }
  if (waiting.size >= waitingMax) {
    const oldest = waiting.keys().next().value
    if (oldest !== undefined) {
      waiting.delete(oldest)
      await finish(ctx, oldest, { status: 'cancelled', error: 'its context never came' })
    }
  }
  const id = ulid(ctx.clock.now())
  await ctx.db
    .insertInto('builds')
    .values({ id, app_id: app.id, status: 'waiting', runner: thisRunner })
    .execute()
  waiting.set(id, { id, app, input: parsed.data })
  return { id }
}

/** Takes the build that waits for its context. Fault `not_found`: unknown, already begun, or lost with a restart. */
export function takeBuild(app: AppRecord, id: string): Build {
  const build = waiting.get(id)
  if (!build || build.app.id !== app.id) {
    throw new Fault(
      'not_found',
      `app ${app.name} has no build ${id} that waits for its context; create a new build`,
    )
  }
  waiting.delete(id)
  return build
}

/**
 * Second half: reads the context (an uncompressed tar), builds, pushes. The last line has a `status`. Aborting cancels the
 * build wherever it is.
 */
export async function* runBuild(
  ctx: ControlContext,
  build: Build,
  context: Readable,
  aborted: AbortSignal,
): AsyncGenerator<BuildLine> {
  const { id, app, input } = build
  const signal = AbortSignal.any([aborted, AbortSignal.timeout(buildMsMax)])
  let release: (() => void) | undefined
  let work: WorkDir | undefined
  let outcome: Outcome = { status: 'cancelled', error: 'the client went away' }
  try {
    work = makeWorkDir(join(ctx.settings.dir, 'builds', id), {
      registryHost: ctx.settings.registry_host,
      password: await mintBuildPassword(ctx, app.id),
      secrets: input.secrets ?? {},
    })
    await spoolContext(context, work.contextFile, signal)
    const place = slots.acquire(app.id, signal)
    if ((await Promise.race([place, ctx.clock.sleep(200)])) === undefined) {
      yield { level: 'log', message: 'waiting for another build to end' }
    }
    release = await place
    await ctx.db.updateTable('builds').set({ status: 'running' }).where('id', '=', id).execute()
    const image = { repository: app.name, tag: input.label || `deployment-${id}` }
    const ref = `${ctx.settings.registry_host}/${image.repository}:${image.tag}`
    yield* buildStep(ctx, { input, work, ref, signal })
    yield* pushStep(ctx, { work, ref, signal })
    const built = await describePushed(ctx, image)
    outcome = { status: 'complete', image: built }
    yield { status: 'complete', image: built }
  } catch (error) {
    if (aborted.aborted) return
    if (!isFault(error)) ctx.log.error({ build: id, err: error }, 'a build failed inside')
    const why = signal.aborted
      ? `it took longer than ${buildMsMax / 60_000} minutes`
      : messageOf(error)
    outcome = { status: 'failed', error: why }
    yield { status: 'failed', error: why }
  } finally {
    release?.()
    work?.remove()
    await finish(ctx, id, outcome)
  }
}

async function* buildStep(
  ctx: ControlContext,
  step: { input: BuildInput; work: WorkDir; ref: string; signal: AbortSignal },
): AsyncGenerator<BuildLine> {
  const { input, work, ref, signal } = step
  const dockerfile = input.dockerfile || 'Dockerfile'
  const args = ['build', '--progress=plain', '--network=host', '-t', ref, '-f', dockerfile]
  if (input.target) args.push('--target', input.target)
  if (input.no_cache) args.push('--no-cache')
  for (const [name, value] of Object.entries(input.args ?? {})) {
    args.push('--build-arg', `${name}=${value}`)
  }
  args.push(...work.secretArgs, '-')
  const story = new BuildStory()
  const code = yield* shown(
    docker({
      dockerHost: ctx.settings.docker_host,
      configDir: work.configDir,
      args,
      stdinFile: work.contextFile,
      signal,
    }),
    (line) => story.take(line),
  )
  signal.throwIfAborted()
  if (code === 0) return
  const source = await readFromContext(work.contextFile, dockerfile)
  throw new Fault('build_failed', story.failure({ name: dockerfile, text: source }))
}

async function* pushStep(
  ctx: ControlContext,
  step: { work: WorkDir; ref: string; signal: AbortSignal },
): AsyncGenerator<BuildLine> {
  const { work, ref, signal } = step
  const client = { dockerHost: ctx.settings.docker_host, configDir: work.configDir, signal }
  let last = ''
  yield { level: 'log', message: `pushing ${ref}` }
  const code = yield* shown(docker({ ...client, args: ['push', ref] }), (line) => (last = line))
  signal.throwIfAborted()
  if (code !== 0) throw new Fault('build_failed', `the image could not be pushed: ${last}`)
  // The build cache keeps the layers; the tag would keep every image for ever.
  const removal = docker({ ...client, args: ['image', 'rm', '--no-prune', ref] })
  while (!(await removal.next()).done);
}

/** Passes lines on as they are shown to people; returns the exit code. */
async function* shown(
  lines: AsyncGenerator<string, number>,
  note: (line: string) => void,
): AsyncGenerator<BuildLine, number> {
  try {
    for (;;) {
      const next = await lines.next()
      if (next.done) return next.value
      note(next.value)
      const message = visibleLine(next.value)
      // Progress of single layers says nothing without a terminal.
      const noise = /: (Preparing|Waiting|Layer already exists)$/
      if (message === undefined || noise.test(message)) continue
      yield { level: /^#\d+ ERROR/.test(message) ? 'error' : 'log', message }
    }
  } finally {
    await lines.return(128)
  }
}

type Outcome =
  | { status: 'complete'; image: BuiltImage }
  | { status: Exclude<BuildStatus, 'complete' | 'waiting' | 'running'>; error: string }

async function finish(ctx: ControlContext, id: string, outcome: Outcome): Promise<void> {
  const image = 'image' in outcome ? outcome.image : undefined
  await ctx.db
    .updateTable('builds')
    .set({
      status: outcome.status,
      error: 'error' in outcome ? outcome.error.slice(0, 8_000) : null,
      image_ref: image?.ref ?? null,
      digest: image?.digest ?? null,
      size: image?.size ?? null,
      finished_at: new Date(ctx.clock.now()),
    })
    .where('id', '=', id)
    .execute()
}

/** On start: builds whose process is dead have failed, and their folders are removed. */
export async function discardOldBuilds(ctx: ControlContext): Promise<void> {
  const rows = await ctx.db
    .selectFrom('builds')
    .select(['id', 'runner'])
    .where('status', 'in', ['waiting', 'running'])
    .execute()
  for (const row of rows.filter(({ runner }) => !runnerLives(runner))) {
    await finish(ctx, row.id, { status: 'failed', error: 'control was restarted; build again' })
  }
  const living = new Set(rows.filter(({ runner }) => runnerLives(runner)).map(({ id }) => id))
  const dir = join(ctx.settings.dir, 'builds')
  for (const id of listFolder(dir)) {
    if (!living.has(id)) rmSync(join(dir, id), { recursive: true, force: true })
  }
}

function listFolder(dir: string): string[] {
  try {
    return readdirSync(dir)
  } catch {
    return []
  }
}
