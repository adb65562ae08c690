import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { httpRequest } from '#sys/http-client.ts'
import { removeFile, writeFileAtomic } from '#sys/files.ts'
import { childEnvironment } from '../environment.ts'
import type { Home } from '../home.ts'
import { filesOf, type Part } from '../part.ts'
import { containerdSocket } from './containerd.ts'

/**
 * The builder: Debian's dockerd for its BuildKit, with a data root and a socket of its own and its hands off the network
 * (it would set the FORWARD policy of the whole machine to DROP). Builds run on the host's network.
 */
export function dockerdPart(
  home: Home,
  options: { cloudId: string; mirrors: Record<string, readonly string[]> },
): Part {
  const settings = home.settings('dockerd.json')
  const pidFile = join(home.run, 'docker.pid')
  return {
    name: 'dockerd',
    ...filesOf(home, 'dockerd'),
    needs: ['containerd'],
    readyTimeoutMs: 60_000,
    stopSignal: 'SIGTERM',
    stopGraceMs: 20_000,
    remedy: 'install it with: scripts/setup; overlay and cgroups are checked by: hangar doctor',
    async prepare() {
      writeFileAtomic(settings, configuration(home, pidFile, options))
      // dockerd believes a pid file whose number has been given to somebody else.
      removeFile(pidFile)
    },
    command: () => ({
      command: 'dockerd',
      // Debian's 20.10 takes this one on the command line only.
      args: [
        '--config-file',
        settings,
        '--containerd-plugins-namespace',
        `${namespaceOf(options.cloudId)}-plugins`,
      ],
      env: childEnvironment(),
      cwd: '/',
    }),
    async probe() {
      if (!existsSync(home.dockerSocket)) return false
      const answer = await httpRequest(`unix:${home.dockerSocket}`, {
        method: 'GET',
        path: '/_ping',
        headers: { host: 'docker' },
        timeoutMs: 1_000,
      })
      answer.body.resume()
      return answer.status === 200
    },
  }
}

const namespaceOf = (cloudId: string): string => `hangar-${cloudId}`

function configuration(
  home: Home,
  pidFile: string,
  options: { cloudId: string; mirrors: Record<string, readonly string[]> },
): string {
  const plain = Object.values(options.mirrors)
    .flat()
    .filter((url) => url.startsWith('http:'))
  return JSON.stringify(
    {
      'data-root': home.data('docker'),
      'exec-root': join(home.run, 'docker'),
      hosts: [`unix://${home.dockerSocket}`],
      // Who may speak to this socket is root: the system's "docker" group has no part in our builds.
      group: 'root',
      pidfile: pidFile,
      containerd: containerdSocket(home),
      'containerd-namespace': namespaceOf(options.cloudId),
      'deprecated-key-path': join(home.data('docker'), 'key.json'),
      // The systemd driver needs a systemd that answers; builds work without one.
      'exec-opts': ['native.cgroupdriver=cgroupfs'],
      bridge: 'none',
      iptables: false,
      ip6tables: false,
      'ip-forward': false,
      'userland-proxy': false,
      'log-level': 'warn',
      // Mirrors can only stand for Docker Hub here, and only as a bare address.
      'registry-mirrors': (options.mirrors['docker.io'] ?? []).map((url) => new URL(url).origin),
      'insecure-registries': [...new Set(plain.map((url) => new URL(url).host))],
      features: { buildkit: true },
    },
    null,
    2,
  )
}
