// Answers with what a test wants to know, echoes what is posted, and speaks enough WebSocket to say hello.
const http = require('node:http')
const { createHash } = require('node:crypto')

const server = http.createServer((request, response) => {
  if (request.url === '/crash') process.exit(7)
  if (request.url === '/unavailable') {
    response.writeHead(503).end('busy\n')
    return
  }
  const chunks = []
  request.on('data', (chunk) => chunks.push(chunk))
  request.on('end', () => {
    response.setHeader('content-type', 'application/json')
    response.end(
      JSON.stringify({
        version: process.env.VERSION,
        machine: process.env.FLY_MACHINE_ID,
        greeting: process.env.GREETING ?? null,
        method: request.method,
        received: Buffer.concat(chunks).length,
        headers: request.headers,
      }) + '\n',
    )
  })
})
server.on('upgrade', (request, socket) => {
  const accept = createHash('sha1')
    .update(request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11')
    .digest('base64')
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
  )
  const text = Buffer.from(`hello from ${process.env.FLY_MACHINE_ID}`)
  socket.write(Buffer.concat([Buffer.from([0x81, text.length]), text]))
  socket.on('data', () => socket.end())
  socket.on('end', () => socket.end())
  socket.on('error', () => socket.destroy())
})
server.listen(Number(process.env.PORT ?? 3000), '0.0.0.0', () =>
  console.log('listening', process.env.VERSION),
)
process.on('SIGINT', () => server.close(() => process.exit(0)))
