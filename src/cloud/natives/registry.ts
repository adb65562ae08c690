import { createHmac } from 'node:crypto'
import { httpRequest } from '#sys/http-client.ts'
import { writeFileAtomic } from '#sys/files.ts'
import { clusterKeyOf } from '../authority.ts'
import { childEnvironment } from '../environment.ts'
import type { Home } from '../home.ts'
import { filesOf, type Part } from '../part.ts'

/** Where built images live: Debian's docker-registry, opened by tokens that our API signs. */
export function registryPart(home: Home, ports: { registry: number; api: number }): Part {
  const settings = home.settings('registry.json')
  return {
    name: 'registry',
    ...filesOf(home, 'registry'),
    needs: [],
    readyTimeoutMs: 20_000,
    stopSignal: 'SIGTERM',
    stopGraceMs: 10_000,
    remedy: 'install it with: scripts/setup',
    prepare: async () => writeFileAtomic(settings, configuration(home, ports), 0o600),
    command: () => ({
      command: 'docker-registry',
      args: ['serve', settings],
      env: childEnvironment(),
      cwd: '/',
    }),
    async probe() {
      const answer = await httpRequest(`http://127.0.0.1:${ports.registry}`, {
        method: 'GET',
        path: '/v2/',
        timeoutMs: 1_000,
      })
      answer.body.resume()
      return answer.status === 401
    },
  }
}

/** Signs the state of uploads in progress: the same after a restart, so that a push goes on. */
const uploadSecret = (home: Home): string =>
  createHmac('sha256', clusterKeyOf(home)).update('registry uploads').digest('hex')

// YAML is a superset of JSON.
function configuration(home: Home, ports: { registry: number; api: number }): string {
  return JSON.stringify(
    {
      version: '0.1',
      log: { level: 'error', accesslog: { disabled: true } },
      storage: {
        filesystem: { rootdirectory: home.data('registry') },
        delete: { enabled: true },
        cache: { blobdescriptor: 'inmemory' },
      },
      http: { addr: `127.0.0.1:${ports.registry}`, relativeurls: true, secret: uploadSecret(home) },
      auth: {
        token: {
          realm: `http://127.0.0.1:${ports.api}/registry/token`,
          service: 'hangar-registry',
          issuer: 'hangar',
          rootcertbundle: home.registryToken.cert,
        },
      },
    },
    null,
    2,
  )
}
