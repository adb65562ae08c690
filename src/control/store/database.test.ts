import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { isFault } from '#core/fault.ts'
import { isUniqueViolation, migrate } from './database.ts'
import { readTogether } from './read-together.ts'
import { loadSecretBox } from './secret-box.ts'
import { startTestPostgres, type TestPostgres } from './test-support.ts'

let pg: TestPostgres
before(async () => {
  pg = await startTestPostgres()
})
after(() => pg.close())

test('migrations run once, also when two copies of control start together', async () => {
  await Promise.all([migrate(pg.db), migrate(pg.db)])
  await pg.db.insertInto('orgs').values({ id: 'o1', slug: 'one', name: 'One' }).execute()
  const network = await pg.db
    .insertInto('networks')
    .values({ org_id: 'o1', name: 'default' })
    .returning('number')
    .executeTakeFirstOrThrow()
  assert.equal(network.number, 1, 'network numbers start at 1')
})

test('SEC-30: a live app name is unique, a deleted one is free at once', async () => {
  const row = { org_id: 'o1', network: 1, name: 'shop' }
  await pg.db
    .insertInto('apps')
    .values({ id: 'a1', ...row })
    .execute()
  await assert.rejects(
    pg.db
      .insertInto('apps')
      .values({ id: 'a2', ...row })
      .execute(),
    (error) => isUniqueViolation(error, 'apps_live_name'),
  )
  await pg.db.updateTable('apps').set({ deleted_at: new Date() }).where('id', '=', 'a1').execute()
  await pg.db
    .insertInto('apps')
    .values({ id: 'a2', ...row })
    .execute()
})

test('what is asked for at once is read by one query, sent after all of them asked', async () => {
  const asked: string[][] = []
  const orgBySlug = readTogether(async (db, slugs) => {
    asked.push(slugs)
    const rows = await db
      .selectFrom('orgs')
      .select(['slug', 'name'])
      .where('slug', 'in', slugs)
      .execute()
    return new Map(rows.map((row) => [row.slug, row.name]))
  })
  const wanted = ['one', 'one', 'none', 'nul\0']
  const found = await Promise.all(wanted.map((slug) => orgBySlug(pg.db, slug)))
  assert.deepEqual(found, ['One', 'One', undefined, undefined])
  assert.deepEqual(asked, [['one', 'none']])

  await pg.db.updateTable('orgs').set({ name: 'Uno' }).where('slug', '=', 'one').execute()
  assert.equal(await orgBySlug(pg.db, 'one'), 'Uno', 'nothing is kept')
  const trx = await pg.db.startTransaction().execute()
  await trx.updateTable('orgs').set({ name: 'Eins' }).where('slug', '=', 'one').execute()
  const sides = await Promise.all([orgBySlug(trx, 'one'), orgBySlug(pg.db, 'one')])
  assert.deepEqual(sides, ['Eins', 'Uno'], 'a transaction reads for itself')
  await trx.rollback().execute()
})

test('a read together that fails fails for all who asked, and the next one is made', async () => {
  let fails = true
  const read = readTogether(async (_, keys) => {
    if (fails) throw new Error('no database')
    return new Map(keys.map((key) => [key, key]))
  })
  for (const result of await Promise.allSettled([read(pg.db, 'a'), read(pg.db, 'b')])) {
    assert.equal(result.status, 'rejected')
  }
  fails = false
  assert.equal(await read(pg.db, 'a'), 'a')
})

test('SEC-8: a sealed secret opens only with its key and under its label', () => {
  const dir = mkdtempSync(join(tmpdir(), 'hangar-box-'))
  try {
    const box = loadSecretBox(dir)
    assert.equal(statSync(join(dir, 'secrets.key')).mode & 0o777, 0o600)
    const sealed = box.seal('hunter2', 'a1:PASSWORD')
    assert.ok(!sealed.includes('hunter2'))
    assert.equal(loadSecretBox(dir).open(sealed, 'a1:PASSWORD'), 'hunter2', 'the key is kept')
    assert.throws(
      () => box.open(sealed, 'a2:PASSWORD'),
      (error) => isFault(error, 'internal'),
    )
    sealed[sealed.length - 1] = (sealed.at(-1) as number) ^ 1
    assert.throws(
      () => box.open(sealed, 'a1:PASSWORD'),
      (error) => isFault(error, 'internal'),
    )
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
})
