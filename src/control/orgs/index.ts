import { Fault } from '#core/fault.ts'
import { newOrgId } from '#core/ids.ts'
import { limits } from '#core/limits.ts'
import type { ControlContext } from '../context.ts'

export interface Org {
  id: string
  number: number
  slug: string
  name: string
}

type Store = Pick<ControlContext, 'db'>

/** The organisation that every user has. SEC-30. */
export const personalSlug = 'personal'

/** Makes an organisation, or returns the one that has the slug. */
export async function ensureOrg(ctx: Store, slug: string, name: string): Promise<Org> {
  const found = await findOrg(ctx, slug)
  if (found) return found
  await ctx.db
    .insertInto('orgs')
    .values({ id: newOrgId(), slug, name })
    .onConflict((c) => c.column('slug').doNothing())
    .execute()
  const org = await findOrg(ctx, slug)
  if (!org) throw new Fault('internal', `organization ${slug} vanished while it was made`)
  return org
}

export async function findOrg(ctx: Store, slug: string): Promise<Org | undefined> {
  return ctx.db
    .selectFrom('orgs')
    .select(['id', 'number', 'slug', 'name'])
    .where('slug', '=', slug)
    .executeTakeFirst()
}

export async function findOrgById(ctx: Store, id: string): Promise<Org | undefined> {
  return ctx.db
    .selectFrom('orgs')
    .select(['id', 'number', 'slug', 'name'])
    .where('id', '=', id)
    .executeTakeFirst()
}

/** Makes an organisation with a slug of its name's letters; a taken slug gets a number. Fault `invalid`. SEC-30. */
export async function createOrg(ctx: Store, name: unknown): Promise<Org> {
  const given = typeof name === 'string' ? name.trim() : ''
  const slug = given
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .replaceAll(/^-+|-+$/g, '')
  if (given.length > 60 || slug === '') {
    throw new Fault('invalid', 'an organization needs a name of letters and digits, at most 60')
  }
  for (let attempt = 1; attempt <= 1_000; attempt++) {
    const wanted = attempt === 1 ? slug : `${slug}-${attempt}`
    const id = newOrgId()
    await ctx.db
      .insertInto('orgs')
      .values({ id, slug: wanted, name: given })
      .onConflict((c) => c.column('slug').doNothing())
      .execute()
    const org = await findOrg(ctx, wanted)
    if (org?.id === id) return org
  }
  throw new Fault('limit_reached', `there are too many organizations named ${given}`)
}

/** All organisations, or only the one with `id`. */
export async function listOrgs(ctx: Store, id?: string): Promise<Org[]> {
  let query = ctx.db.selectFrom('orgs').select(['id', 'number', 'slug', 'name']).orderBy('number')
  if (id !== undefined) query = query.where('id', '=', id)
  return query.execute()
}

/** Keeps others from adding to the organization until the transaction ends, so that what it has can be counted. */
export async function holdOrg(trx: Store['db'], orgId: string): Promise<void> {
  await trx.selectFrom('orgs').select('id').where('id', '=', orgId).forNoKeyUpdate().execute()
}

/** NET-1: the number of an org's network; the first use of a name makes it. Fault `limit_reached`. */
export async function ensureNetwork(ctx: Store, orgId: string, name: string): Promise<number> {
  const find = (db: Store['db']) =>
    db
      .selectFrom('networks')
      .select('number')
      .where('org_id', '=', orgId)
      .where('name', '=', name)
      .executeTakeFirst()
  const found = await find(ctx.db)
  if (found) return found.number
  return ctx.db.transaction().execute(async (trx) => {
    await holdOrg(trx, orgId)
    const meanwhile = await find(trx)
    if (meanwhile) return meanwhile.number
    const { count } = await trx
      .selectFrom('networks')
      .select((eb) => eb.fn.countAll<number>().as('count'))
      .where('org_id', '=', orgId)
      .executeTakeFirstOrThrow()
    if (count >= limits.networksPerOrgMax) {
      throw new Fault(
        'limit_reached',
        `the organization has ${count} networks, the most; use one of those instead of "${name}"`,
      )
    }
    const values = { org_id: orgId, name }
    const made = trx.insertInto('networks').values(values).returning('number')
    return (await made.executeTakeFirstOrThrow()).number
  })
}
