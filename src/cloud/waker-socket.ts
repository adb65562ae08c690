import { spawnSync } from 'node:child_process'
import net from 'node:net'
import { Fault } from '#core/fault.ts'

/**
 * The waker's listening socket on 127.0.0.1, owned by the supervisor so that it outlives every edge: while an edge is
 * being started again, cold requests wait in the backlog. We must never accept on it ourselves, and a listening server of
 * Node would: so the descriptor is only bound here, and listen(2) is called by a child on the same open socket.
 */
export interface WakerSocket {
  readonly port: number
  /** Handed to the edge as descriptor 3. */
  readonly fd: number
  close(): void
}

interface BoundHandle {
  readonly fd: number
  getsockname(out: { port?: number }): number
  close(): void
}

/** What `node:cluster` itself uses to bind without listening; returns an error number instead of throwing. */
const binder = net as unknown as {
  _createServerHandle(address: string, port: number, addressType: 4): BoundHandle | number
}

/** The kernel's usual upper limit (net.core.somaxconn): requests that wait while no edge accepts. */
export const backlogMax = 4096

const listenOnFd3 = `require('net').createServer().listen({ fd: 3, backlog: ${backlogMax} }, () => process.exit(0))`

// A handle that nothing refers to is closed when it is collected.
const held = new Set<BoundHandle>()

/** Binds and listens. A Fault when another program has the port, an edge that an earlier supervisor started included. */
export function openWakerSocket(port: number): WakerSocket {
  const handle = binder._createServerHandle('127.0.0.1', port, 4)
  if (typeof handle === 'number' || !isBound(handle, port)) {
    if (typeof handle !== 'number') handle.close()
    throw new Fault(
      'native_failed',
      `cannot bind the waker's port ${port} on 127.0.0.1; see who has it: ss -ltnp`,
    )
  }
  held.add(handle)
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
      `cannot listen on the waker's port ${port}: ${listened.stderr?.toString().slice(-500)}`,
    )
  }
  return { port, fd: handle.fd, close }
}

/** libuv keeps a port that is taken to itself until listen(2), which would then take any port. */
function isBound(handle: BoundHandle, port: number): boolean {
  const name: { port?: number } = {}
  return handle.getsockname(name) === 0 && name.port === port
}
