import { createCipheriv, createDecipheriv, createHmac, randomBytes } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { Fault } from '#core/fault.ts'
import { readTextFile, writeFileAtomic } from '#sys/files.ts'

/** SEC-8: what is sealed can be opened only with the master key, and only under the label it was sealed with. */
export interface SecretBox {
  seal(plain: string, label: string): Buffer
  open(sealed: Buffer, label: string): string
  /** SEC-1: changes with the value, and tells nothing about it to whoever lacks the key. 16 hexadecimal characters. */
  digest(plain: string, label: string): string
}

const nonceBytes = 12
const tagBytes = 16

/** AES-256-GCM: nonce, tag, ciphertext. The label is authenticated, so that rows cannot be swapped. */
export function secretBox(key: Buffer): SecretBox {
  return {
    seal(plain, label) {
      const nonce = randomBytes(nonceBytes)
      const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(Buffer.from(label))
      const body = Buffer.concat([cipher.update(plain, 'utf8'), cipher.final()])
      return Buffer.concat([nonce, cipher.getAuthTag(), body])
    },
    open(sealed, label) {
      const nonce = sealed.subarray(0, nonceBytes)
      const tag = sealed.subarray(nonceBytes, nonceBytes + tagBytes)
      const decipher = createDecipheriv('aes-256-gcm', key, nonce)
        .setAAD(Buffer.from(label))
        .setAuthTag(tag)
      try {
        const body = sealed.subarray(nonceBytes + tagBytes)
        return Buffer.concat([decipher.update(body), decipher.final()]).toString('utf8')
      } catch (cause) {
        throw new Fault(
          'internal',
          'a stored secret does not open with this master key; was secrets.key replaced?',
          { cause },
        )
      }
    },
    digest: (plain, label) =>
      createHmac('sha256', key).update(`${label}=${plain}`).digest('hex').slice(0, 16),
  }
}

/** The master key of this control, made at the first start: `dir/secrets.key`, mode 0600. */
export function loadSecretBox(dir: string): SecretBox {
  mkdirSync(dir, { recursive: true })
  const path = join(dir, 'secrets.key')
  const text = readTextFile(path)
  if (text === undefined) writeFileAtomic(path, randomBytes(32).toString('base64'), 0o600)
  const key = Buffer.from(text ?? readTextFile(path) ?? '', 'base64')
  if (key.length !== 32) {
    throw new Fault('internal', `${path} is not a 256-bit key in base64; restore it from a backup`)
  }
  return secretBox(key)
}
