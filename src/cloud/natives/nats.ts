import net from 'node:net'
import { writeFileAtomic } from '#sys/files.ts'
import { clusterKeyOf } from '../authority.ts'
import { childEnvironment } from '../environment.ts'
import type { Home } from '../home.ts'
import { filesOf, type Part } from '../part.ts'

/** The bus: nats-server with JetStream on disk, for whoever has the cluster key, on this machine only. */
export function natsPart(home: Home, port: number): Part {
  const settings = home.settings('nats.conf')
  return {
    name: 'nats',
    ...filesOf(home, 'nats'),
    needs: [],
    readyTimeoutMs: 20_000,
    stopSignal: 'SIGTERM',
    stopGraceMs: 10_000,
    remedy: 'install it with: scripts/setup',
    prepare: async () => writeFileAtomic(settings, configuration(home, port), 0o600),
    command: () => ({
      command: 'nats-server',
      args: ['--config', settings],
      env: childEnvironment(),
      cwd: '/',
    }),
    probe: () => greetsWithJetStream(port),
  }
}

const mebibyte = 1024 * 1024

// NATS reads a superset of JSON.
function configuration(home: Home, port: number): string {
  return JSON.stringify(
    {
      server_name: 'hangar',
      listen: `127.0.0.1:${port}`,
      jetstream: {
        store_dir: home.data('nats'),
        max_mem_store: 64 * mebibyte,
        max_file_store: 1024 * mebibyte,
      },
      authorization: { token: clusterKeyOf(home), timeout: 5 },
      max_connections: 4096,
      write_deadline: '5s',
    },
    null,
    2,
  )
}

/** nats-server speaks first: `INFO {…}`. */
function greetsWithJetStream(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect({ port, host: '127.0.0.1' })
    let text = ''
    const end = (ready: boolean) => {
      socket.destroy()
      resolve(ready)
    }
    socket.setTimeout(1_000, () => end(false))
    socket.on('error', () => end(false))
    socket.on('close', () => end(false))
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString()
      if (text.includes('\r\n')) end(/^INFO \{.*"jetstream":true/.test(text))
    })
  })
}
