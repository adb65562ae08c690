import { randomBytes } from 'node:crypto'
import { chmodSync, existsSync, renameSync } from 'node:fs'
import { runOk } from '#sys/process.ts'
import { readTextFile, writeFileAtomic } from '#sys/files.ts'
import type { Home } from './home.ts'

/** Makes what the cloud's parts trust each other by, once: the shared key, the local CA, the registry's token signer. */
export async function ensureSecrets(home: Home, domain: string): Promise<void> {
  if (!existsSync(home.clusterKey)) {
    writeFileAtomic(home.clusterKey, randomBytes(32).toString('base64url'), 0o600)
  }
  await ensureAuthority(home, domain)
  await ensureCertificate({
    ...home.registryToken,
    subject: '/O=Hangar/CN=hangar registry tokens',
    extensions: ['keyUsage=critical,digitalSignature'],
  })
}

/** The shared secret of the roles. */
export const clusterKeyOf = (home: Home): string => (readTextFile(home.clusterKey) ?? '').trim()

// Bound to the domain: whoever trusts this CA trusts it for the names of this cloud and for nothing else.
async function ensureAuthority(home: Home, domain: string): Promise<void> {
  const boundTo = `${home.ca.cert}.domain`
  const renew = existsSync(home.ca.cert) && readTextFile(boundTo) !== domain
  await ensureCertificate({
    ...home.ca,
    renew,
    subject: `/O=Hangar/CN=Hangar local CA for ${domain}`,
    extensions: [
      'basicConstraints=critical,CA:TRUE,pathlen:0',
      'keyUsage=critical,keyCertSign,cRLSign',
      `nameConstraints=critical,permitted;DNS:${domain}`,
    ],
  })
  writeFileAtomic(boundTo, domain)
}

async function ensureCertificate(options: {
  cert: string
  key: string
  subject: string
  extensions: readonly string[]
  renew?: boolean
}): Promise<void> {
  const { cert, key } = options
  if (existsSync(cert) && existsSync(key) && !options.renew) return
  const made = { cert: `${cert}.new`, key: `${key}.new` }
  const how = '-x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 -days 3650'
  // Without a file of its own openssl would mix in the extensions of the system's openssl.cnf.
  const config = `${cert}.cnf`
  writeFileAtomic(
    config,
    `[req]\ndistinguished_name=dn\nx509_extensions=ext\nprompt=no\n[dn]\n[ext]\nsubjectKeyIdentifier=hash\n${options.extensions.join('\n')}\n`,
  )
  const where = [
    '-config',
    config,
    '-subj',
    options.subject,
    '-keyout',
    made.key,
    '-out',
    made.cert,
  ]
  await runOk('openssl', ['req', ...how.split(' '), ...where], { timeoutMs: 30_000 })
  chmodSync(made.key, 0o600)
  // The certificate last: a kill between the two makes a new pair at the next start.
  renameSync(made.key, key)
  renameSync(made.cert, cert)
}
