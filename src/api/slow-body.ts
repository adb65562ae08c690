import type { Server } from 'node:http'
import { buildContextPath } from './builds.ts'

/**
 * Whoever sends a body slower than this holds a connection and its memory for nothing. Only a build's context may take as
 * long as it takes, so the server's own limit, which knows no paths, cannot be used.
 */
export function refuseSlowBodies(server: Server, { bodyMsMax }: { bodyMsMax: number }): void {
  server.on('request', (incoming, outgoing) => {
    if (incoming.complete || buildContextPath.test(incoming.url?.split('?')[0] ?? '')) return
    const timer = setTimeout(() => {
      if (incoming.complete) return
      const { socket } = incoming
      if (outgoing.headersSent) {
        socket.destroy()
        return
      }
      const error = `the body did not arrive within ${bodyMsMax / 1000} s; send it again`
      const body = JSON.stringify({ error, status: 'wait_timeout' })
      const head = `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}`
      socket.end(`HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n${head}\r\n\r\n${body}`)
      incoming.destroy()
    }, bodyMsMax)
    incoming.once('close', () => clearTimeout(timer))
  })
}
