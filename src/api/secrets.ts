import type { Hono } from 'hono'
import { Fault } from '#core/fault.ts'
import { textValueSchema } from '#spec/machine.ts'
import { getApp, listSecrets, setSecrets, type AppRecord } from '#control/apps/index.ts'
import type { ControlContext } from '#control/index.ts'
import { pushSecrets } from '#control/machines/index.ts'
import { bodyOf } from './body.ts'
import { appOf, flag, intOf, objectBody, param, type Env, type Request } from './request.ts'

/** A silent host must not hold up the answer: the janitor brings it the secrets later. */
const pushWaitMs = 2_000

/** Null removes. */
export type SecretValues = Record<string, string | null>

/** SEC-3, SEC-4: stores the values, and with `replaceAll` removes all others; brings them to the hosts for the next start. */
export async function storeSecrets(
  ctx: ControlContext,
  app: AppRecord,
  values: SecretValues,
  { replaceAll = false }: { replaceAll?: boolean } = {},
) {
  const before = replaceAll ? await listSecrets(ctx, app) : []
  const gone = Object.fromEntries(before.map(({ name }) => [name, null]))
  const result = await setSecrets(ctx, app, { ...gone, ...values })
  const pushed = pushSecrets(ctx, app).catch((error: unknown) =>
    ctx.log.warn({ app: app.name, err: error }, 'secrets not pushed; the janitor tries again'),
  )
  await Promise.race([pushed, ctx.clock.sleep(pushWaitMs)])
  return result
}

function requireVersion(c: Request, app: AppRecord): void {
  const least = intOf(c.req.query('min_version') ?? c.req.query('version'), 'version') ?? 0
  if (least > app.secretsVersion) {
    throw new Fault(
      'precondition_failed',
      `app ${app.name} has secrets version ${app.secretsVersion}, older than ${least}`,
    )
  }
}

/** SEC-1…SEC-4, SEC-7. Setting is staging: machines that run keep what they have. */
export function secretRoutes(api: Hono<Env>): void {
  const root = '/v1/apps/:app/secrets'

  api.get(root, async (c) => {
    const showValues = flag(c.req.query('show_secrets') ?? 'false')
    const app = await appOf(c, showValues ? 'write' : 'read')
    requireVersion(c, app)
    const secrets = await listSecrets(c.var.ctx, app, { showValues })
    return c.json({ version: app.secretsVersion, secrets })
  })

  api.post(root, async (c) => {
    const app = await appOf(c, 'write')
    const { values } = await objectBody(c)
    // Control holds this to `secretsInputSchema`: names that the schema would drop in silence are refused there by name.
    if (typeof values !== 'object' || values === null || Array.isArray(values)) {
      throw new Fault('invalid', 'the body must be {"values": {"NAME": "value" or null}}')
    }
    return c.json(await storeSecrets(c.var.ctx, app, values as SecretValues))
  })

  api.get(`${root}/:name`, async (c) => {
    const showValues = flag(c.req.query('show_secrets') ?? 'false')
    const app = await appOf(c, showValues ? 'write' : 'read')
    requireVersion(c, app)
    return c.json(await findSecret(c, app, showValues))
  })

  api.post(`${root}/:name`, async (c) => {
    const app = await appOf(c, 'write')
    const { value } = await bodyOf(c, textValueSchema)
    const { version } = await storeSecrets(c.var.ctx, app, { [param(c, 'name')]: value })
    return c.json({ ...(await findSecret(c, app, false)), version })
  })

  api.delete(`${root}/:name`, async (c) => {
    const app = await appOf(c, 'write')
    await findSecret(c, app, false)
    const { version } = await storeSecrets(c.var.ctx, app, { [param(c, 'name')]: null })
    return c.json({ version })
  })
}

/** §5.3. */
export function secretKeyRoutes(api: Hono<Env>): void {
  for (const path of ['/v1/apps/:app/secretkeys', '/v1/apps/:app/secretkeys/*']) {
    api.all(path, async (c) => {
      await appOf(c, c.req.method === 'GET' ? 'read' : 'write')
      throw new Fault('not_available_yet', 'secret keys are not available yet; use secrets')
    })
  }
}

async function findSecret(c: Request, app: AppRecord, showValues: boolean) {
  const name = param(c, 'name')
  const fresh = await getApp(c.var.ctx, app.name)
  const secrets = await listSecrets(c.var.ctx, fresh, { showValues })
  const secret = secrets.find((one) => one.name === name)
  if (!secret) throw new Fault('not_found', `app ${app.name} has no secret ${name}`)
  return secret
}
