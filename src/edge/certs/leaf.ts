import 'reflect-metadata'
import * as x509 from '@peculiar/x509'
import { createPrivateKey, webcrypto, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { systemClock } from '#core/clock.ts'
import { readTextFile, writeFileAtomic } from '#sys/files.ts'

/**
 * The certificates of the local cloud. PRX-80: one wildcard leaf covers `<app>.<domain>` and is what a client without
 * SNI gets; for any other name HAProxy itself makes a leaf, signed by the same authority, with the wildcard's key.
 */
export interface LeafOptions {
  domain: string
  caCertFile: string
  caKeyFile: string
  /** PEM: leaf, authority, key. */
  leafFile: string
  /** PEM: authority and its key, for HAProxy. */
  signingFile: string
}

const dayMs = 86_400_000
/** Browsers refuse leaves that live longer than 398 days. */
const lifeMs = 390 * dayMs
const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const

/** Writes the files when they are missing, signed by another authority, or past two thirds of their life. True when it did. */
export async function ensureLeaf(options: LeafOptions): Promise<boolean> {
  const caCert = readFileSync(options.caCertFile, 'utf8')
  const caKey = readFileSync(options.caKeyFile, 'utf8')
  const signing = `${caCert.trim()}\n${caKey.trim()}\n`
  if (readTextFile(options.signingFile) !== signing) {
    writeFileAtomic(options.signingFile, signing, 0o600)
  }
  if (isGood(readTextFile(options.leafFile), caCert, options.domain)) return false
  writeFileAtomic(
    options.leafFile,
    await makeLeaf({ caCert, caKey, domain: options.domain }),
    0o600,
  )
  return true
}

function isGood(leafPem: string | undefined, caCertPem: string, domain: string): boolean {
  if (leafPem === undefined) return false
  try {
    const leaf = new X509Certificate(leafPem)
    const left = Date.parse(leaf.validTo) - systemClock.now()
    const signed = leaf.verify(new X509Certificate(caCertPem).publicKey)
    return signed && left > lifeMs / 3 && leaf.checkHost(`any.${domain}`) !== undefined
  } catch {
    return false // Cut short or not a certificate: a new one is made.
  }
}

async function makeLeaf(options: {
  caCert: string
  caKey: string
  domain: string
}): Promise<string> {
  x509.cryptoProvider.set(webcrypto as Crypto)
  const authority = new x509.X509Certificate(options.caCert)
  const signingKey = await webcrypto.subtle.importKey(
    'pkcs8',
    createPrivateKey(options.caKey).export({ type: 'pkcs8', format: 'der' }),
    algorithm,
    false,
    ['sign'],
  )
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const now = systemClock.now()
  const leaf = await x509.X509CertificateGenerator.create({
    serialNumber: Buffer.from(webcrypto.getRandomValues(new Uint8Array(15))).toString('hex'),
    subject: `CN=*.${options.domain}`,
    issuer: authority.subject,
    notBefore: new Date(now - dayMs),
    notAfter: new Date(Math.min(now + lifeMs, authority.notAfter.getTime())),
    publicKey: keys.publicKey,
    signingKey,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension([
        { type: 'dns', value: `*.${options.domain}` },
        { type: 'dns', value: options.domain },
      ]),
    ],
  })
  const key = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)
  const keyPem = createPrivateKey({ key: Buffer.from(key), format: 'der', type: 'pkcs8' })
  // HAProxy takes the key of this file for the leaves it makes itself: they are ECDSA because this one is.
  return `${leaf.toString('pem')}\n${options.caCert.trim()}\n${keyPem.export({ type: 'pkcs8', format: 'pem' })}`
}
