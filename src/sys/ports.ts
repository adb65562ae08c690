import net from 'node:net'
import { Fault } from '#core/fault.ts'

function isFree(port: number, address: string): Promise<boolean> {
  return new Promise((resolve) => {
    const server = net.createServer()
    server.once('error', () => resolve(false))
    server.listen({ port, host: address, exclusive: true }, () => server.close(() => resolve(true)))
  })
}

/** The wanted port when it is free, otherwise the next free one above an unprivileged start. */
export async function chooseFreePort(
  wanted: number,
  taken: ReadonlySet<number> = new Set(),
  address = '0.0.0.0',
): Promise<number> {
  const candidates = [wanted]
  const start = wanted < 1024 ? wanted + 8000 : wanted + 1
  for (let i = 0; i < 2000; i++) candidates.push(start + i)
  for (const port of candidates) {
    if (port <= 65535 && !taken.has(port) && (await isFree(port, address))) return port
  }
  throw new Fault(
    'native_failed',
    `no free port near ${wanted}; stop another program or set another port in hangar.toml`,
  )
}
