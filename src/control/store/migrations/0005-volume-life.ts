import { sql, type Kysely } from 'kysely'

/** A volume's settings are its host's, which acts on them; a destroyed one is kept for a while. VOL-11, VOL-17. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql
    .raw(`alter table volume_placements drop column options, add column destroyed_at timestamptz`)
    .execute(db)
}
