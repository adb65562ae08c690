import type { DatabaseSync } from 'node:sqlite'
import { appSecretsSchema, type AppSecrets } from '#spec/host-api.ts'
import type { SecretBox } from './secret-box.ts'

/** The sealed secrets of each app, so that a stopped machine starts with nobody else's help. */
export class SecretTable {
  readonly #db: DatabaseSync
  readonly #box: SecretBox

  constructor(db: DatabaseSync, box: SecretBox) {
    this.#db = db
    this.#box = box
  }

  /** Keeps these unless newer ones are here: a late message never brings back old values. */
  put(app: string, secrets: AppSecrets): void {
    this.#db
      .prepare(
        `INSERT INTO app_secrets (app_id, version, sealed) VALUES (?, ?, ?)
         ON CONFLICT (app_id) DO UPDATE SET version = excluded.version, sealed = excluded.sealed
         WHERE excluded.version >= app_secrets.version`,
      )
      .run(app, secrets.version, this.#box.seal(JSON.stringify(secrets), app))
  }

  /** Version 0 and nothing in it for an app that never had any. */
  get(app: string): AppSecrets {
    const row = this.#db.prepare('SELECT sealed FROM app_secrets WHERE app_id = ?').get(app) as
      | { sealed: Uint8Array }
      | undefined
    if (!row) return { version: 0, values: {} }
    return appSecretsSchema.parse(JSON.parse(this.#box.open(row.sealed, app)))
  }

  remove(app: string): void {
    this.#db.prepare('DELETE FROM app_secrets WHERE app_id = ?').run(app)
  }
}
