import 'reflect-metadata'
import { X509CertificateGenerator } from '@peculiar/x509'
import { SignJWT } from 'jose'
import { writeFileSync } from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'

/** Registries as they are met in the world: behind tokens, behind bad networks. */

export interface Server {
  /** `http://127.0.0.1:PORT` */
  url: string
  host: string
  close(): Promise<void>
}

export async function serve(handler: http.RequestListener): Promise<Server> {
  const server = http.createServer(handler)
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    host: `127.0.0.1:${port}`,
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

export interface Network extends Server {
  /** `GET /v2/…` of everything that was asked for. */
  seen: string[]
  /** The next answers to requests whose path contains `match` are treated so; each is used up once. */
  next(match: string, trouble: Trouble): void
}

export type Trouble =
  | { kind: 'status'; status: number }
  /** One byte in the middle is another. */
  | { kind: 'corrupt' }
  /** The connection is lost after this many bytes. */
  | { kind: 'cut'; afterBytes: number }
  /** Nothing more comes after this many bytes. */
  | { kind: 'stall'; afterBytes: number }

/** A network in front of a real registry, with the troubles that a test asks for. */
export async function startNetwork(registryUrl: string): Promise<Network> {
  const seen: string[] = []
  const troubles: { match: string; trouble: Trouble }[] = []
  const takeTrouble = (path: string): Trouble | undefined => {
    const at = troubles.findIndex((each) => path.includes(each.match))
    return at === -1 ? undefined : troubles.splice(at, 1)[0]?.trouble
  }
  const server = await serve((request, response) => {
    seen.push(`${request.method} ${request.url}${request.headers.range ? ' range' : ''}`)
    const trouble = takeTrouble(request.url ?? '')
    if (trouble?.kind === 'status') {
      response.writeHead(trouble.status).end()
      return
    }
    const target = new URL(request.url ?? '/', registryUrl)
    const onAnswer = (answer: http.IncomingMessage): void => {
      response.writeHead(answer.statusCode ?? 500, answer.headers)
      passThrough(answer, response, trouble)
    }
    http.get(target, { headers: { ...request.headers, host: target.host } }, onAnswer)
  })
  return { ...server, seen, next: (match, trouble) => void troubles.push({ match, trouble }) }
}

function passThrough(
  answer: http.IncomingMessage,
  response: http.ServerResponse,
  trouble: Trouble | undefined,
): void {
  const chunks: Buffer[] = []
  answer.on('data', (chunk: Buffer) => chunks.push(chunk))
  answer.on('end', () => {
    const bytes = Buffer.concat(chunks)
    if (trouble?.kind === 'corrupt') {
      const middle = bytes.length >> 1
      bytes[middle] = (bytes[middle] as number) ^ 1
    }
    if (trouble?.kind === 'cut' || trouble?.kind === 'stall') {
      response.write(bytes.subarray(0, trouble.afterBytes), () => {
        if (trouble.kind === 'cut') setTimeout(() => response.destroy(), 50)
      })
      return
    }
    response.end(bytes)
  })
}

export interface TokenRealm extends Server {
  /** The registry's `auth:` section. */
  auth: string
  /** `scope` and `authorization` of each request. */
  asked: { scope: string | null; authorization: string | undefined }[]
  /** A token for the test's own pushes. */
  token(repository: string, actions: string[]): Promise<string>
}

/** A token server as a registry wants one: it signs what the asker may do with a key that the registry trusts. */
export async function startTokenRealm(
  folder: string,
  allow: (authorization: string | undefined) => boolean,
): Promise<TokenRealm> {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
  const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const certificate = await X509CertificateGenerator.createSelfSigned({
    name: 'CN=token test',
    keys,
    signingAlgorithm: algorithm,
    notBefore: new Date(Date.now() - 60_000),
    notAfter: new Date(Date.now() + 3_600_000),
  })
  const bundle = join(folder, 'token-ca.pem')
  writeFileSync(bundle, certificate.toString('pem'))
  const token = (repository: string, actions: string[]) =>
    new SignJWT({ access: [{ type: 'repository', name: repository, actions }] })
      .setProtectedHeader({ alg: 'ES256', typ: 'JWT', x5c: [certificate.toString('base64')] })
      .setIssuer('test-issuer')
      .setAudience('test-registry')
      .setIssuedAt()
      .setNotBefore('-10s')
      .setExpirationTime('60s')
      .setJti(crypto.randomUUID())
      .sign(keys.privateKey)
  const asked: TokenRealm['asked'] = []
  const server = await serve((request, response) => {
    const scope = new URL(request.url ?? '/', 'http://realm').searchParams.get('scope')
    const { authorization } = request.headers
    asked.push({ scope, authorization })
    if (!allow(authorization)) {
      response.writeHead(401).end('{}')
      return
    }
    const repository = scope?.split(':')[1] ?? ''
    void token(repository, ['pull']).then((text) =>
      response.writeHead(200).end(JSON.stringify({ token: text, expires_in: 60 })),
    )
  })
  const auth = `  token:
    realm: ${server.url}/token
    service: test-registry
    issuer: test-issuer
    rootcertbundle: ${bundle}
`
  return { ...server, auth, asked, token }
}
