import { sql, type Kysely } from 'kysely'

/** What an app is for, when it is not an ordinary one: clients ask for their builders by it. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql.raw(`alter table apps add column role text not null default ''`).execute(db)
}
