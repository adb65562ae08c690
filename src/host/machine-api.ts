import { createServer, type IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { getRequestListener } from '@hono/node-server'
import { Hono } from 'hono'
import { Fault } from '#core/fault.ts'
import type { Agent } from './agent.ts'
import { answerFaults } from './server.ts'
import { suspendMachine } from './verbs.ts'

interface Asked {
  Bindings: { incoming: IncomingMessage }
}

const connectionMsMax = 10_000
const headerBytesMax = 8 * 1024

/**
 * MCH-96: what programs of a machine ask of `/.fly/api`, without a token, of their own machine and no other (MCH-44). Takes
 * the connections that PID 1 hands on.
 */
export function machineApi(
  agent: () => Agent,
  { timeoutMs = connectionMsMax } = {},
): (id: string, connection: Duplex) => void {
  const machines = new WeakMap<Duplex, string>()
  const routes = new Hono<Asked>()
  routes.post('/v1/apps/:app/machines/:id/suspend', async (context) => {
    const id = machines.get(context.env.incoming.socket) ?? ''
    const { app } = agent().store.machines.get(id)
    if (context.req.param('id') !== id || context.req.param('app') !== app.name) {
      throw new Fault(
        'forbidden',
        `this socket is machine ${id}'s of app ${app.name}, and speaks for no other`,
      )
    }
    await suspendMachine(agent(), id, { source: 'user' })
    return context.json({ ok: true })
  })
  routes.notFound(() => {
    const known = 'POST /v1/apps/$FLY_APP_NAME/machines/$FLY_MACHINE_ID/suspend'
    throw new Fault('not_found', `no such path; a machine may ask for ${known}`)
  })
  answerFaults(routes, agent)
  const answer = getRequestListener(routes.fetch)
  const options = { maxHeaderSize: headerBytesMax }
  const server = createServer(options, (request, response) => void answer(request, response))
  server.maxRequestsPerSocket = 1
  return (id, connection) => {
    machines.set(connection, id)
    // A server's own limits of time are for those who come by a socket on which it listens.
    const late = setTimeout(() => connection.destroy(), timeoutMs)
    connection.once('close', () => clearTimeout(late))
    server.emit('connection', connection)
  }
}
