import { Fault, isFault, messageOf } from '#core/fault.ts'
import { parseDefinition, withoutFileContents } from '#spec/fly-toml.ts'
import { deployInputSchema, type DeployInput, type Release } from '#spec/release.ts'
import { getAppById, markDeployed, type AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { describeIssue, pushSecrets } from '../machines/index.ts'
import { appendProgress } from '../store/release-progress.ts'
import { claimAbandoned, touchRun, type ReleaseRun } from '../store/release-runs.ts'
import { createRelease, currentRelease, listReleases, setReleaseStatus } from '../store/releases.ts'
import { resolveImage } from '../hosts/index.ts'
import { refuseBesideFirst } from './client-releases.ts'
import { deployStepSchema, type DeployStep } from './job.ts'
import { checkDeploy, jobOf } from './prepare.ts'
import { realWorld } from './real-world.ts'
import { runDeploy } from './run.ts'

/** How often a runner says that it lives. */
const touchMs = 3_000
/** How often dead runners' releases are looked for. */
const resumeMs = 5_000

/**
 * Starts a deploy and returns its release; it goes on in this process whatever becomes of the caller. Nothing has changed
 * when this throws: `invalid` (the definition, every complaint), `not_available_yet`, `image_unavailable`, `conflict`
 * (another deploy of the app runs, with its user), `host_unreachable`. DEP-1.
 */
export async function startDeploy(
  ctx: ControlContext,
  app: AppRecord,
  raw: unknown,
  user: string,
): Promise<Release> {
  const parsed = deployInputSchema.safeParse(raw)
  if (!parsed.success) throw new Fault('invalid', describeIssue(parsed.error))
  const input: DeployInput = parsed.data
  const { strategy, region, config } = checkDeploy(ctx, input)
  const image = await resolveImage(ctx, { image: input.image, region })
  const command = config.deploy?.release_command
  const step: DeployStep = {
    mode: 'deploy',
    image: { ref: image.ref, digest: image.digest },
    secretsVersion: app.secretsVersion,
    firstDeploy: !(await everDeployed(ctx, app)),
    releaseCommand: command && !input.skip_release_command ? 'todo' : 'done',
  }
  const release = await createRelease(ctx, {
    appId: app.id,
    driver: 'server',
    status: 'running',
    strategy,
    description: 'Deploy image',
    reason: '',
    imageRef: image.ref,
    user,
    definition: withoutFileContents(input.definition),
    input,
    step,
    refuse: (db) => refuseBesideFirst({ ...ctx, db }, app),
  })
  await markDeployed(ctx, app)
  drive(ctx, { release, appId: app.id, input, step }, { resumed: false })
  return release
}

/**
 * SEC-3: gives running machines the newest secrets, one after another like a deploy; stopped ones stay stopped and have
 * them at their next start. No release command runs (DEP-13). Faults: `conflict`.
 */
export async function applySecrets(
  ctx: ControlContext,
  app: AppRecord,
  user: string,
): Promise<Release> {
  await pushSecrets(ctx, app)
  const current = await currentRelease(ctx, { appId: app.id })
  const input: DeployInput = {
    definition: pace(current?.definition),
    image: current?.image_ref || 'as it is',
    strategy: 'rolling',
    skip_release_command: true,
  }
  const step: DeployStep = {
    mode: 'secrets',
    image: { ref: current?.image_ref ?? '', digest: '' },
    secretsVersion: app.secretsVersion,
    firstDeploy: false,
    releaseCommand: 'done',
  }
  const release = await createRelease(ctx, {
    appId: app.id,
    driver: 'server',
    status: 'running',
    strategy: 'rolling',
    description: 'Apply secrets',
    reason: '',
    imageRef: current?.image_ref ?? null,
    user,
    definition: current?.definition ?? null,
    input,
    step,
    refuse: (db) => refuseBesideFirst({ ...ctx, db }, app),
  })
  drive(ctx, { release, appId: app.id, input, step }, { resumed: false })
  return release
}

/** Of a definition, only how fast a rolling update may go: the machines keep their config. */
function pace(definition: Record<string, unknown> | null | undefined): Record<string, unknown> {
  const parsed = parseDefinition(definition ?? {})
  const deploy = parsed.ok ? parsed.config.deploy : undefined
  const { max_unavailable, wait_timeout } = deploy ?? {}
  return {
    deploy: {
      ...(max_unavailable === undefined ? {} : { max_unavailable }),
      ...(wait_timeout === undefined ? {} : { wait_timeout }),
    },
  }
}

async function everDeployed(ctx: ControlContext, app: AppRecord): Promise<boolean> {
  const releases = await listReleases(ctx, { appId: app.id, limit: 1_000 })
  return releases.some((release) => release.status === 'complete')
}

/**
 * Takes up the releases whose process died, and goes on looking for such until control stops. Resolves after the first
 * look. A release whose record cannot be read any more ends as interrupted.
 */
export async function resumeDeploys(ctx: ControlContext): Promise<void> {
  const look = async () => {
    for (const run of await claimAbandoned(ctx)) {
      ctx.log.info({ release: run.release.id, app: run.appId }, 'taking up a release')
      drive(ctx, run, { resumed: true })
    }
  }
  const goOn = async () => {
    while (!ctx.stopping.aborted) {
      await ctx.clock.sleep(resumeMs, ctx.stopping).catch(() => {})
      if (ctx.stopping.aborted) return
      await look().catch((error: unknown) =>
        ctx.log.warn({ error: messageOf(error) }, 'could not look for releases to take up'),
      )
    }
  }
  await look()
  void goOn()
}

/** Runs a release in the background to its end. When control stops first, it is left for the next process to take up. */
function drive(ctx: ControlContext, run: ReleaseRun, { resumed }: { resumed: boolean }): void {
  const { release } = run
  const ended = new AbortController()
  const signal = AbortSignal.any([ctx.stopping, ended.signal])
  const stayAlive = async () => {
    while (!signal.aborted) {
      await ctx.clock.sleep(touchMs, signal).catch(() => {})
      if (signal.aborted) return
      try {
        await touchRun(ctx, release.id)
      } catch (error) {
        // Another process has it now: this one must not touch another machine.
        if (isFault(error, 'conflict')) ended.abort(error)
      }
    }
  }
  const work = async () => {
    try {
      if (resumed) await sayResumed(ctx, run)
      await carryOut(ctx, run, { resumed, signal })
      await finish(ctx, run, 'complete', doneMessage(run))
    } catch (error) {
      if (signal.aborted) return
      ctx.log.info({ release: release.id, error: messageOf(error) }, 'a release failed')
      await finish(ctx, run, 'failed', `Release v${release.version} failed: ${messageOf(error)}`)
    }
  }
  void stayAlive()
  void work()
    .catch((error: unknown) => {
      ctx.log.error(
        { release: release.id, error: messageOf(error) },
        'a release is left unfinished',
      )
    })
    .finally(() => ended.abort())
}

async function carryOut(
  ctx: ControlContext,
  run: ReleaseRun,
  { resumed, signal }: { resumed: boolean; signal: AbortSignal },
): Promise<void> {
  const app = await getAppById(ctx, run.appId)
  const step = deployStepSchema.parse(run.step)
  const job = jobOf(ctx, { release: run.release, input: run.input, step, resumed })
  await runDeploy(realWorld(ctx, app, run.release), job, step, signal)
}

const sayResumed = (ctx: ControlContext, { release }: ReleaseRun): Promise<void> =>
  appendProgress(ctx, release.id, {
    level: 'warn',
    message: `The control plane was restarted; going on with release v${release.version}`,
  })

const doneMessage = ({ release, step }: ReleaseRun): string =>
  step['mode'] === 'secrets'
    ? `Release v${release.version} is complete: the running machines have the newest secrets`
    : `Release v${release.version} is complete`

/** Writes the end down, however long the database is away. */
async function finish(
  ctx: ControlContext,
  { release }: ReleaseRun,
  status: 'complete' | 'failed',
  message: string,
): Promise<void> {
  for (let waitMs = 200; ; waitMs = Math.min(waitMs * 2, 5_000)) {
    try {
      await setReleaseStatus(ctx, { id: release.id, status, message })
      return
    } catch (error) {
      if (isFault(error) || ctx.stopping.aborted) throw error
      ctx.log.warn({ release: release.id, error: messageOf(error) }, 'cannot write a release down')
      await ctx.clock.sleep(waitMs * (0.5 + Math.random() / 2), ctx.stopping)
    }
  }
}
