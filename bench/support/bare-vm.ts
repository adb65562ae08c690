import { spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync, rmSync } from 'node:fs'
import { once } from 'node:events'
import net from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { dialUnix, Guest } from '#host/guest/index.ts'
import type { StartSpec } from '#host/runtime/driver.ts'
import { architecture, fds, sockets } from '#host/runtime/qemu/qemu-args.ts'
import { Qmp } from '#host/runtime/qemu/qmp.ts'
import type { VmNetwork } from '#host/runtime/qemu/vm-network.ts'
import { guestRun } from '#host/runtime/qemu/vm-start.ts'

/** What a bare QEMU is given: the very files and words of the machine beside it. */
export interface BareParts {
  dir: string
  netnsPath: string
  args: string[]
  kernelPath: string
  initramfsPath: string
  squashfsPath: string
  upperPath: string
  /** With it the VM goes on from there. */
  memoryPath?: string
}

export interface BareVm {
  /** Greets PID 1 and tells it the command; nothing of it is kept. */
  run(spec: StartSpec, network: VmNetwork): Promise<void>
  /** Lets it go on as soon as its memory is loaded: it stood still when that was saved. */
  goOn(): Promise<void>
  kill(): Promise<void>
}

/** QEMU alone: no cgroup, user, devices or record of its own. Its tap and its disk are there before. */
export function bareVm(parts: BareParts): BareVm {
  rmSync(parts.dir, { recursive: true, force: true })
  mkdirSync(parts.dir)
  const wanted: Record<number, string> = {
    [fds.kernel]: parts.kernelPath,
    [fds.initramfs]: parts.initramfsPath,
    [fds.image]: parts.squashfsPath,
    [fds.upper]: parts.upperPath,
    [fds.memory]: parts.memoryPath ?? '/dev/null',
  }
  const files = Object.entries(wanted).map(([fd, path]) =>
    openSync(path, Number(fd) === fds.upper ? 'r+' : 'r'),
  )
  const incoming = parts.memoryPath ? ['-incoming', `fd:${fds.memory}`] : []
  const words = [architecture().program, ...parts.args, ...incoming]
  const child = spawn('nsenter', [`--net=${parts.netnsPath}`, ...words], {
    cwd: parts.dir,
    stdio: ['ignore', 'ignore', 'inherit', ...files],
  })
  for (const fd of files) closeSync(fd)
  const gone = once(child, 'exit')
  return {
    async run(spec, network) {
      const dial = () => dialUnix(join(parts.dir, sockets.guest))
      const guest = new Guest({ name: spec.id, dial, padded: true })
      await guest.run(guestRun(spec, network), 120_000)
      guest.close()
    },
    async goOn() {
      const qmp = await Qmp.open(join(parts.dir, sockets.qmp), 20_000)
      while ((await qmp.status()) === 'inmigrate') await sleep(1)
      await qmp.execute('cont')
      qmp.close()
    },
    async kill() {
      child.kill('SIGKILL')
      await gone
    },
  }
}

/**
 * Resolves when a TCP port takes a connection. A new one every 5 ms, and none is waited for: what was sent to a guest that
 * was not there yet would be sent again only after a second.
 */
export async function untilListens(address: string, port: number): Promise<void> {
  const open = new Set<net.Socket>()
  const until = performance.now() + 60_000
  const accepted = Promise.withResolvers<'accepted'>()
  try {
    while (performance.now() < until) {
      const socket = net.connect(port, address)
      open.add(socket)
      socket.on('connect', () => accepted.resolve('accepted'))
      socket.on('error', () => open.delete(socket))
      for (const old of [...open].slice(0, Math.max(0, open.size - 100))) {
        open.delete(old)
        old.destroy()
      }
      if ((await Promise.race([accepted.promise, sleep(5)])) === 'accepted') return
    }
  } finally {
    for (const socket of open) socket.destroy()
  }
  throw new Error(`nothing listens on ${address}:${port}`)
}
