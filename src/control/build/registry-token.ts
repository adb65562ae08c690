import { createPrivateKey, randomUUID, timingSafeEqual, X509Certificate } from 'node:crypto'
import { SignJWT, jwtVerify } from 'jose'
import { Fault } from '#core/fault.ts'
import { readTextFile } from '#sys/files.ts'
import { findApp, getAppById } from '../apps/index.ts'
import { mayUseApp, verifyTokens, type Caller } from '../auth/index.ts'
import type { ControlContext } from '../context.ts'

/** What the registry's own configuration must say. */
export const registryService = 'hangar-registry'
export const registryIssuer = 'hangar'

export interface Grant {
  type: string
  name: string
  actions: string[]
}

const tokenSeconds = 900
const buildAudience = 'hangar-build'

function signingKey(ctx: Pick<ControlContext, 'settings'>) {
  const pem = readTextFile(ctx.settings.registry_token_key_file)
  const certificate = readTextFile(ctx.settings.registry_token_cert_file)
  if (!pem || !certificate) {
    throw new Fault(
      'native_failed',
      `the registry's signing key is missing: ${ctx.settings.registry_token_key_file}; run: hangar up`,
    )
  }
  const der = new X509Certificate(certificate).raw.toString('base64')
  return { key: createPrivateKey(pem), x5c: [der], certificate }
}

type Who =
  | { kind: 'cluster' }
  | { kind: 'caller'; caller: Caller }
  | { kind: 'build'; appId: string }

/** Who shows these credentials to the registry. Fault `unauthorized`. SEC-20: an API token goes with every other user name. */
export async function verifyRegistryUser(
  ctx: ControlContext,
  user: string,
  password: string,
): Promise<Who> {
  if (user === 'cluster') {
    const given = Buffer.from(password)
    const wanted = Buffer.from(ctx.clusterKey)
    if (given.length === wanted.length && timingSafeEqual(given, wanted)) return { kind: 'cluster' }
  } else if (user === 'build') {
    const appId = await verifyBuildPassword(ctx, password)
    if (appId !== undefined) return { kind: 'build', appId }
  } else {
    return { kind: 'caller', caller: await verifyTokens(ctx, password) }
  }
  throw new Fault(
    'unauthorized',
    'the registry takes user x with an API token as the password; try: hangar env',
  )
}

/** What is granted of `repository:<app>:pull,push`: the part that the caller may have. Other scopes grant nothing. */
export async function grantScope(
  ctx: ControlContext,
  who: Who,
  scope: string,
): Promise<Grant | undefined> {
  const [type, name, wanted] = scope.split(':')
  if (type !== 'repository' || !name || wanted === undefined) return undefined
  const app = await findApp(ctx, name)
  const may = async (action: string): Promise<boolean> => {
    if (who.kind === 'cluster') return action === 'pull'
    if (!app) return false
    if (who.kind === 'build') {
      if (app.id === who.appId) return action === 'pull' || action === 'push'
      const builder = await getAppById(ctx, who.appId)
      return action === 'pull' && builder.org.id === app.org.id
    }
    if (action === 'push') return mayUseApp(who.caller, app, 'write')
    return action === 'pull' && mayUseApp(who.caller, app, 'read')
  }
  const actions: string[] = []
  for (const action of wanted.split(',')) if (await may(action)) actions.push(action)
  return { type, name, actions }
}

/** A token that the registry accepts: ES256, the certificate in `x5c`, the grants in `access`. */
export async function signRegistryToken(
  ctx: ControlContext,
  options: { subject: string; service: string; access: readonly Grant[] },
): Promise<{ token: string; access_token: string; expires_in: number; issued_at: string }> {
  const { key, x5c } = signingKey(ctx)
  const now = Math.floor(ctx.clock.now() / 1000)
  const token = await new SignJWT({ access: options.access })
    .setProtectedHeader({ alg: 'ES256', typ: 'JWT', x5c })
    .setIssuer(registryIssuer)
    .setSubject(options.subject)
    .setAudience(options.service)
    .setIssuedAt(now)
    // The registry's clock is ours, but seconds are cut off on both sides.
    .setNotBefore(now - 10)
    .setExpirationTime(now + tokenSeconds)
    .setJti(randomUUID())
    .sign(key)
  return {
    token,
    access_token: token,
    expires_in: tokenSeconds,
    issued_at: new Date(now * 1000).toISOString(),
  }
}

/** The password with which one build pushes its app's image and pulls those of its organisation. Lives two hours. */
export async function mintBuildPassword(ctx: ControlContext, appId: string): Promise<string> {
  const now = Math.floor(ctx.clock.now() / 1000)
  return new SignJWT({})
    .setProtectedHeader({ alg: 'ES256' })
    .setSubject(appId)
    .setAudience(buildAudience)
    .setExpirationTime(now + 7200)
    .sign(signingKey(ctx).key)
}

async function verifyBuildPassword(
  ctx: ControlContext,
  password: string,
): Promise<string | undefined> {
  try {
    const key = new X509Certificate(signingKey(ctx).certificate).publicKey
    const { payload } = await jwtVerify(password, key, {
      audience: buildAudience,
      currentDate: new Date(ctx.clock.now()),
    })
    return payload.sub
  } catch {
    return undefined
  }
}
