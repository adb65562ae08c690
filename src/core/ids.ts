import { randomBytes } from 'node:crypto'

const crockford = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'

/** A ULID: 48 bits of milliseconds and 80 random bits, 26 characters that sort by time. */
export function ulid(now: number = Date.now()): string {
  let time = ''
  for (let i = 0, rest = now; i < 10; i++, rest = Math.floor(rest / 32)) {
    time = crockford[rest % 32] + time
  }
  const random = randomBytes(16)
  let tail = ''
  for (const byte of random) tail += crockford[byte & 31]
  return time + tail
}

function alphanumeric(length: number): string {
  const alphabet = '0123456789abcdefghijklmnopqrstuvwxyz'
  let out = ''
  while (out.length < length) {
    for (const byte of randomBytes(length)) {
      // 252 is the largest multiple of 36 in a byte: no character is likelier than another.
      if (byte < 252 && out.length < length) out += alphabet[byte % 36]
    }
  }
  return out
}

/** MCH-10: 14 lowercase hexadecimal characters, stable for the machine's life. */
export const newMachineId = (): string => randomBytes(7).toString('hex')
/** VOL-3. */
export const newVolumeId = (): string => `vol_${alphanumeric(16)}`
/** VOL-14. */
export const newSnapshotId = (): string => `vs_${alphanumeric(16)}`
export const newAppId = (): string => `app_${alphanumeric(16)}`
export const newReleaseId = (): string => `rel_${alphanumeric(16)}`
export const newTokenId = (): string => `tok_${alphanumeric(16)}`
export const newOrgId = (): string => `org_${alphanumeric(16)}`
/** An opaque bearer token: 256 random bits. SEC-20's `fo1_` prefix tells clients that it is no macaroon. */
export const newTokenSecret = (): string => `fo1_${randomBytes(32).toString('base64url')}`
export const newNonce = (): string => randomBytes(12).toString('hex')

const adjectives =
  'aged autumn billowing bitter black blue bold broken calm cold cool crimson damp dark dawn delicate divine dry empty falling floral fragrant frosty green hidden holy icy late lingering little lively long misty morning muddy nameless old patient polished proud purple quiet red restless rough shy silent small snowy solitary sparkling spring still summer twilight wandering weathered white wild winter wispy withered young'.split(
    ' ',
  )
const nouns =
  'bird breeze brook bush butterfly cherry cloud darkness dawn dew dream dust feather field fire firefly flower fog forest frog frost glade glitter grass haze hill lake leaf meadow moon morning mountain night paper pine pond rain resonance river sea shadow shape silence sky smoke snow snowflake sound star sun sunset surf thunder tree violet voice water waterfall wave wildflower wind wood'.split(
    ' ',
  )

/** MCH-10: a machine's or app's generated name, `adjective-noun-NNNN`. */
export function generatedName(): string {
  const bytes = randomBytes(6)
  const pick = (list: string[], at: number) => list[bytes.readUInt16BE(at) % list.length]
  return `${pick(adjectives, 0)}-${pick(nouns, 2)}-${1000 + (bytes.readUInt16BE(4) % 9000)}`
}
