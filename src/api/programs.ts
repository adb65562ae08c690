import type { Hono } from 'hono'
import { openProgram } from '#control/machines/index.ts'
import { readProgramQuery } from '#spec/program.ts'
import { joinWebSockets, requireUpgrade } from '#sys/web-socket.ts'
import { appOf, param, type Env } from './request.ts'

/** A program with open streams in a machine: a terminal, or a pipe. Whoever may exec may do this. */
export function programRoutes(api: Hono<Env>): void {
  api.get('/api/v1/apps/:app/machines/:id/exec', async (c) => {
    const app = await appOf(c, 'write')
    const accept = requireUpgrade(c.env)
    const query = readProgramQuery(c.req.url)
    const { ctx, requestId, caller } = c.var
    const machine = param(c, 'id')
    const host = await openProgram(ctx, app, machine, query)
    // Who, where and when; what is run may hold secrets.
    const token = caller.tokenId
    ctx.log.info(
      { requestId, app: app.name, machine, email: caller.email, token, tty: query.tty },
      'a program was opened in a machine',
    )
    try {
      joinWebSockets(await accept(), host)
    } catch (error) {
      host.terminate()
      throw error
    }
    return c.body(null)
  })
}
