import { spawnSync } from 'node:child_process'
import { chmodSync, renameSync } from 'node:fs'
import net from 'node:net'
import { Fault } from '#core/fault.ts'
import { removeFile } from '#sys/files.ts'

/**
 * The waker's listening socket, owned by the supervisor so that it outlives every edge: while an edge is being started
 * again, cold requests wait in the backlog. We must never accept on it ourselves, and a listening server of Node would:
 * so the descriptor is only bound here, and listen(2) is called by a child on the same open socket.
 */
export interface WakerSocket {
  readonly path: string
  /** Handed to the edge as descriptor 3. */
  readonly fd: number
  close(): void
}

interface BoundHandle {
  readonly fd: number
  close(): void
}

/** What `node:cluster` itself uses to bind without listening; returns an error number instead of throwing. */
const binder = net as unknown as {
  _createServerHandle(path: string, port: -1, addressType: -1): BoundHandle | number
}

/** The kernel's usual upper limit (net.core.somaxconn): requests that wait while no edge accepts. */
export const backlogMax = 4096

const listenOnFd3 = `require('net').createServer().listen({ fd: 3, backlog: ${backlogMax} }, () => process.exit(0))`

// A handle that nothing refers to is closed when it is collected.
const held = new Set<BoundHandle>()

/** Binds and listens at `path`, replacing a socket that an earlier supervisor left there. */
export function openWakerSocket(path: string): WakerSocket {
  // libuv removes the name it bound when we end; the edge lives on and needs its name, so that is another one.
  const boundAs = `${path}.new`
  removeFile(boundAs)
  const handle = binder._createServerHandle(boundAs, -1, -1)
  if (typeof handle === 'number') {
    throw new Fault('native_failed', `cannot bind the waker's socket ${path} (error ${handle})`)
  }
  held.add(handle)
  chmodSync(boundAs, 0o600)
  const listened = spawnSync(process.execPath, ['-e', listenOnFd3], {
    stdio: ['ignore', 'ignore', 'pipe', handle.fd],
    timeout: 10_000,
  })
  const close = () => {
    held.delete(handle)
    handle.close()
  }
  if (listened.status !== 0) {
    close()
    throw new Fault(
      'native_failed',
      `cannot listen on the waker's socket ${path}: ${listened.stderr?.toString().slice(-500)}`,
    )
  }
  renameSync(boundAs, path)
  return { path, fd: handle.fd, close }
}
