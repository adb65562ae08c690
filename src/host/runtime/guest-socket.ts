import { once } from 'node:events'
import { closeSync, openSync, renameSync, rmSync } from 'node:fs'
import net, { type Socket } from 'node:net'
import { join } from 'node:path'
import { dialUnix } from '#host/guest/index.ts'

const name = 'guest.sock'

/** sockaddr_un holds 108 bytes with the zero at the end; homes may lie deeper. */
const pathBytesMax = 107

/** The path of a file in a folder, however deep it lies, for as long as `use` takes. */
async function withShortPath<T>(
  folder: string,
  file: string,
  use: (path: string) => Promise<T>,
): Promise<T> {
  const path = join(folder, file)
  if (Buffer.byteLength(path) <= pathBytesMax) return use(path)
  const fd = openSync(folder, 'r')
  try {
    return await use(`/proc/self/fd/${fd}/${file}`)
  } finally {
    closeSync(fd)
  }
}

/**
 * The socket on which a container's PID 1 listens: bound in the machine's folder, where only the host's root can reach it,
 * and handed down open. Nothing of it is to be seen inside, and nobody inside can put another in its place.
 */
export interface GuestListener {
  /** For the `stdio` of the child that becomes PID 1. */
  fd: number
  /** Ours is closed and PID 1's stays. To be called once the child has it, before anybody dials. */
  handOver(): void
}

export async function listenForGuest(folder: string): Promise<GuestListener> {
  const server = net.createServer()
  const making = `${name}.new`
  rmSync(join(folder, making), { force: true })
  await withShortPath(folder, making, async (path) => {
    server.listen({ path, backlog: 16 })
    await once(server, 'listening')
  })
  // A server that is closed removes the path that it was bound to.
  renameSync(join(folder, making), join(folder, name))
  const { fd } = (server as unknown as { _handle: { fd: number } })._handle
  return { fd, handOver: () => void server.close() }
}

export const dialGuest = (folder: string): Promise<Socket> => withShortPath(folder, name, dialUnix)
