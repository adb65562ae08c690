import { isFault, messageOf } from '#core/fault.ts'
import type { Request } from './request.ts'

/**
 * Answers with JSON lines. The work behind them is told by the signal when the client goes away or control stops. A failure
 * after the first line can only cut the stream, so it is logged.
 */
export function jsonLines(
  c: Request,
  lines: (signal: AbortSignal) => AsyncGenerator,
  status: 200 | 201 = 200,
): Response {
  const { ctx, requestId } = c.var
  const ended = new AbortController()
  const signal = AbortSignal.any([ended.signal, c.req.raw.signal, ctx.stopping])
  const source = lines(signal)
  const encoder = new TextEncoder()
  // A generator that waits hears of the client's leaving only through the signal.
  const left = new Promise<IteratorReturnResult<undefined>>((resolve) => {
    const done = { done: true, value: undefined } as const
    if (signal.aborted) resolve(done)
    else signal.addEventListener('abort', () => resolve(done), { once: true })
  })
  // One that rests at a line is ended here; one that waits ends by the signal it was given.
  const finish = () => void source.return(undefined).catch(() => {})
  signal.addEventListener('abort', finish, { once: true })
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const next = await Promise.race([source.next(), left])
        if (next.done) {
          ended.abort()
          controller.close()
        } else controller.enqueue(encoder.encode(`${JSON.stringify(next.value)}\n`))
      } catch (error) {
        // The client left while the line was on its way.
        if (signal.aborted) return
        ended.abort()
        const level = isFault(error) && error.whose === 'user' ? 'debug' : 'error'
        ctx.log[level]({ requestId, error: messageOf(error) }, 'a stream was cut')
        controller.error(error)
      }
    },
    cancel: () => ended.abort(),
  })
  return new Response(body, { status, headers: { 'content-type': 'application/x-ndjson' } })
}
