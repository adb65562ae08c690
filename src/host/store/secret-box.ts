import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { Fault } from '#core/fault.ts'
import { writeFileAtomic } from '#sys/files.ts'

/** AES-256-GCM under a key that never leaves this host's folder. SEC-8. */
export interface SecretBox {
  seal(plain: string, context: string): Buffer
  /** @throws Fault `internal` when the bytes were not sealed by this key for this context */
  open(sealed: Uint8Array, context: string): string
}

const ivBytes = 12
const tagBytes = 16

export function openSecretBox(keyFile: string): SecretBox {
  if (!existsSync(keyFile)) writeFileAtomic(keyFile, randomBytes(32), 0o600)
  const key = readFileSync(keyFile)
  if (key.length !== 32) {
    throw new Fault('internal', `${keyFile} is not a 32-byte key; restore it from a backup`)
  }
  return {
    seal(plain, context) {
      const iv = randomBytes(ivBytes)
      const cipher = createCipheriv('aes-256-gcm', key, iv).setAAD(Buffer.from(context))
      const body = Buffer.concat([cipher.update(plain, 'utf8'), cipher.final()])
      return Buffer.concat([iv, cipher.getAuthTag(), body])
    },
    open(sealed, context) {
      const bytes = Buffer.from(sealed)
      const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, ivBytes))
      decipher.setAAD(Buffer.from(context))
      decipher.setAuthTag(bytes.subarray(ivBytes, ivBytes + tagBytes))
      try {
        const body = bytes.subarray(ivBytes + tagBytes)
        return Buffer.concat([decipher.update(body), decipher.final()]).toString('utf8')
      } catch (cause) {
        throw new Fault('internal', `the secrets of ${context} do not open with ${keyFile}`, {
          cause,
        })
      }
    },
  }
}
