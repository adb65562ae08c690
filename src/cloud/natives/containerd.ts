import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { run } from '#sys/process.ts'
import { writeFileAtomic } from '#sys/files.ts'
import { childEnvironment } from '../environment.ts'
import type { Home } from '../home.ts'
import { filesOf, type Part } from '../part.ts'

export const containerdSocket = (home: Home): string => join(home.run, 'containerd', 'c.sock')

/**
 * dockerd's containerd. A part of its own, because dockerd would otherwise take the machine's containerd where one runs,
 * and leave its own behind where it is killed.
 */
export function containerdPart(home: Home): Part {
  const settings = home.settings('containerd.toml')
  const socket = containerdSocket(home)
  return {
    name: 'containerd',
    ...filesOf(home, 'containerd'),
    needs: [],
    readyTimeoutMs: 30_000,
    stopSignal: 'SIGTERM',
    stopGraceMs: 10_000,
    remedy: 'install it with: scripts/setup',
    prepare: async () => writeFileAtomic(settings, configuration(home, socket)),
    command: () => ({
      command: 'containerd',
      args: ['--config', settings],
      env: childEnvironment(),
      cwd: '/',
    }),
    async probe() {
      if (!existsSync(socket)) return false
      const asked = ['--address', socket, '--connect-timeout', '1s', 'version']
      return (await run('ctr', asked, { timeoutMs: 3_000 })).code === 0
    },
  }
}

function configuration(home: Home, socket: string): string {
  const text = (value: string) => JSON.stringify(value)
  return `version = 2
root = ${text(join(home.data('docker'), 'containerd'))}
state = ${text(join(home.run, 'containerd', 'state'))}
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
address = ${text(socket)}
[debug]
level = "warn"
`
}
