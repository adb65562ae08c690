import type { MiddlewareHandler } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { Fault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import { buildContextPath } from './builds.ts'
import type { Env } from './request.ts'

/** What carries machines' files, all of an app's secrets or a whole definition. */
const largeBodyPath =
  /^(?:\/v1\/apps\/[^/]+\/(?:machines(?:\/[^/]+)?|secrets)|\/api\/v1\/(?:apps\/[^/]+\/deploys|releases))\/?$/

/** Refuses bodies above the limit of their path with a Fault `too_large`; a build's context has a limit of its own. */
export function limitBodies(): MiddlewareHandler<Env> {
  const usual = upTo(limits.apiBodyBytesMax)
  const large = upTo(limits.apiLargeBodyBytesMax)
  return (c, next) => {
    if (c.req.method === 'GET' || buildContextPath.test(c.req.path)) return next()
    return (largeBodyPath.test(c.req.path) ? large : usual)(c, next)
  }
}

function upTo(maxSize: number): MiddlewareHandler<Env> {
  const onError = () => {
    throw new Fault('too_large', `the body is larger than the limit of ${maxSize} bytes`)
  }
  const counted = bodyLimit({ maxSize, onError })
  return (c, next) => {
    const length = c.req.header('content-length')
    // A body is counted as it comes only where its length was not told: that takes it through streams, which cost more.
    if (length === undefined || c.req.header('transfer-encoding')) return counted(c, next)
    if (Number(length) > maxSize) onError()
    return next()
  }
}
