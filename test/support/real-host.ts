import type { TestContext } from 'node:test'
import type { Hono } from 'hono'
import type { Env } from '#api/request.ts'
import type { ControlContext } from '#control/index.ts'
import { operatorToken, startTestControl } from '#control/test-support.ts'
import { openTestHost, type TestHost } from '#host/testing.ts'

/** A real control over a real host, of which only the containers are fakes: what both sides need of a test. */

export interface RealHost {
  ctx: ControlContext
  host: TestHost
  /** The operator's. */
  token: string
}

/** Control has not heard of the host yet. */
export async function openRealHost(t: TestContext): Promise<RealHost> {
  const host = await openTestHost(t)
  const control = await startTestControl([])
  t.after(() => control.close())
  return { ctx: control.ctx, host, token: await operatorToken(control.ctx) }
}

const room = { cpus: 4096, memory_mb: 4_000_000 }

/** Lets control hear of the host now and every second, with room for all. Returns what lets it hear once more. */
export function announceHost(
  t: TestContext,
  { ctx, host, now = Date.now }: { ctx: ControlContext; host: TestHost; now?: () => number },
): () => void {
  host.agent.host.capacity = room
  const beat = () =>
    ctx.hosts.note({
      v: 1,
      host: 'test',
      number: 7,
      region: 'ord',
      api: host.url,
      counter: 1,
      at: now(),
      capacity: room,
      used: { cpus: 0, memory_mb: 0, machines: 0 },
    })
  beat()
  const beats = setInterval(beat, 1_000)
  t.after(() => clearInterval(beats))
  return beat
}

export interface Answer {
  status: number
  text: string
  body: Record<string, unknown>
}

/** One request to the API, as clients send it. */
export const callerOf =
  (api: Hono<Env>, token: string) =>
  async (line: string, body?: unknown, nonce?: string): Promise<Answer> => {
    const [method = '', path = ''] = line.split(' ')
    const answer = await api.request(path, {
      method,
      headers: {
        authorization: `Bearer ${token}`,
        'content-type': 'application/json',
        ...(nonce ? { 'fly-machine-lease-nonce': nonce } : {}),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await answer.text()
    const parsed = text === '' ? {} : (JSON.parse(text) as Answer['body'])
    return { status: answer.status, text, body: parsed }
  }
