import { Fault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import { secretsInputSchema, type Secret } from '#spec/app.ts'
import type { AppSecrets } from '#spec/host-api.ts'
import type { ControlContext } from '../context.ts'
import type { AppRecord } from './apps.ts'

type Store = Pick<ControlContext, 'db' | 'secretBox'>
type AppId = Pick<AppRecord, 'id' | 'name'>

const labelOf = (app: AppId, name: string) => `${app.id}:${name}`

/** SEC-1: names and digests; values only with `showValues`, for callers that may see them. */
export async function listSecrets(
  ctx: Store,
  app: AppId,
  options: { showValues?: boolean } = {},
): Promise<(Secret & { value?: string })[]> {
  const rows = await ctx.db
    .selectFrom('secrets')
    .selectAll()
    .where('app_id', '=', app.id)
    .orderBy('name')
    .execute()
  return rows.map((row) => ({
    name: row.name,
    digest: row.digest,
    created_at: row.created_at.toISOString(),
    updated_at: row.updated_at.toISOString(),
    ...(options.showValues
      ? { value: ctx.secretBox.open(row.sealed, labelOf(app, row.name)) }
      : {}),
  }))
}

/**
 * SEC-4: sets and, with null, deletes; all or nothing. Returns the version and all secrets; the version is the old one where
 * the values change nothing. Storing is staging: running machines keep what they have. Faults: `invalid` (SEC-7: bad name), `too_large`, `limit_reached`.
 */
export async function setSecrets(
  ctx: Store,
  app: AppId,
  values: Record<string, string | null>,
): Promise<{ version: number; secrets: Secret[] }> {
  checkValues(values)
  const version = await ctx.db.transaction().execute(async (trx) => {
    // The app's row is locked: changes of one app's secrets happen one after the other.
    const { secrets_version: before } = await trx
      .selectFrom('apps')
      .select('secrets_version')
      .where('id', '=', app.id)
      .forUpdate()
      .executeTakeFirstOrThrow()
    const changes = changesOf(values, {
      digests: await digestsOf(trx, app),
      digest: (name, value) => ctx.secretBox.digest(value, labelOf(app, name)),
    })
    if (changes.length === 0) return before
    const { secrets_version } = await trx
      .updateTable('apps')
      .set({ secrets_version: before + 1 })
      .where('id', '=', app.id)
      .returning('secrets_version')
      .executeTakeFirstOrThrow()
    for (const [name, value] of changes) {
      if (value === null) {
        await trx
          .deleteFrom('secrets')
          .where('app_id', '=', app.id)
          .where('name', '=', name)
          .execute()
        continue
      }
      const label = labelOf(app, name)
      const sealed = ctx.secretBox.seal(value, label)
      const digest = ctx.secretBox.digest(value, label)
      await trx
        .insertInto('secrets')
        .values({ app_id: app.id, name, sealed, digest })
        .onConflict((c) =>
          c.columns(['app_id', 'name']).doUpdateSet({ sealed, digest, updated_at: new Date() }),
        )
        .execute()
    }
    const { count } = await trx
      .selectFrom('secrets')
      .select((eb) => eb.fn.countAll<number>().as('count'))
      .where('app_id', '=', app.id)
      .executeTakeFirstOrThrow()
    if (count > limits.secretsPerAppMax) {
      throw new Fault('limit_reached', `an app has at most ${limits.secretsPerAppMax} secrets`)
    }
    return secrets_version
  })
  return { version, secrets: await listSecrets(ctx, app) }
}

async function digestsOf(db: Store['db'], app: AppId): Promise<Map<string, string>> {
  const rows = await db
    .selectFrom('secrets')
    .select(['name', 'digest'])
    .where('app_id', '=', app.id)
    .execute()
  return new Map(rows.map(({ name, digest }) => [name, digest]))
}

/** What differs from what is stored: a value set again, or a name removed that is not there, is no reason to restart. */
function changesOf(
  values: Record<string, string | null>,
  stored: { digests: Map<string, string>; digest(name: string, value: string): string },
): [string, string | null][] {
  return Object.entries(values).filter(([name, value]) =>
    value === null
      ? stored.digests.has(name)
      : stored.digests.get(name) !== stored.digest(name, value),
  )
}

function checkValues(values: Record<string, string | null>): void {
  const checked = secretsInputSchema.safeParse({ values })
  if (!checked.success) {
    const issue = checked.error.issues[0]
    const name = String(issue?.path[1] ?? '')
    // A key that does not fit the schema of names carries its reasons one level down.
    const reason =
      issue?.code === 'invalid_key' ? issue.issues[0]?.message : (issue?.message ?? 'is invalid')
    throw new Fault('invalid', `secret name "${name}" ${reason}`)
  }
  if (Object.hasOwn(values, '__proto__')) {
    throw new Fault('invalid', 'a secret cannot be named __proto__; choose another name')
  }
  for (const [name, value] of Object.entries(values)) {
    if (value !== null && Buffer.byteLength(value) > limits.secretBytesMax) {
      throw new Fault(
        'too_large',
        `secret ${name} is larger than the limit of ${limits.secretBytesMax} bytes`,
      )
    }
  }
}

/** SEC-2: all secrets in the clear, with their version, to be sent to hosts. */
export async function openSecrets(ctx: Store, app: AppId): Promise<AppSecrets> {
  // One snapshot, so that the version is that of the values.
  return ctx.db
    .transaction()
    .setIsolationLevel('repeatable read')
    .execute(async (trx) => {
      const { secrets_version } = await trx
        .selectFrom('apps')
        .select('secrets_version')
        .where('id', '=', app.id)
        .executeTakeFirstOrThrow()
      const rows = await trx
        .selectFrom('secrets')
        .select(['name', 'sealed'])
        .where('app_id', '=', app.id)
        .execute()
      const values = Object.fromEntries(
        rows.map((row) => [row.name, ctx.secretBox.open(row.sealed, labelOf(app, row.name))]),
      )
      return { version: secrets_version, values }
    })
}
