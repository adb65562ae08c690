import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { systemClock } from '#core/clock.ts'
import { httpRequest } from '#sys/http-client.ts'
import { daemonReady, startDaemon, stopDaemon, type DaemonSpec } from '#sys/daemon.ts'
import { runOk } from '#sys/process.ts'
import { freePort } from '#sys/test-support.ts'
import { registryIssuer, registryService } from './registry-token.ts'

/** A real registry that trusts the tokens signed with `keyFile`; a real dockerd of the test's own. */

export async function makeSigningKey(keyFile: string, certFile: string): Promise<void> {
  const request = 'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2'
  const files = ['-subj', '/CN=hangar', '-keyout', keyFile, '-out', certFile]
  await runOk('openssl', [...request.split(' '), ...files])
}

async function start(spec: DaemonSpec, probe: () => Promise<boolean>, timeoutMs: number) {
  const record = startDaemon(spec)
  await daemonReady(spec, record, probe, timeoutMs)
  return { close: () => stopDaemon(spec.recordFile) }
}

export async function startTestRegistry(options: {
  dir: string
  realm: string
  certFile: string
}): Promise<{ host: string; close(): Promise<void> }> {
  const port = await freePort()
  const dir = join(options.dir, 'registry')
  mkdirSync(dir, { recursive: true })
  const config = join(dir, 'config.yml')
  writeFileSync(
    config,
    JSON.stringify({
      version: '0.1',
      log: { level: 'warn' },
      storage: { filesystem: { rootdirectory: join(dir, 'data') } },
      http: { addr: `127.0.0.1:${port}` },
      auth: {
        token: {
          realm: options.realm,
          service: registryService,
          issuer: registryIssuer,
          rootcertbundle: options.certFile,
        },
      },
    }),
  )
  const host = `127.0.0.1:${port}`
  const daemon = await start(
    {
      name: 'docker-registry',
      command: '/usr/bin/docker-registry',
      args: ['serve', config],
      logFile: join(dir, 'log'),
      recordFile: join(dir, 'record'),
    },
    async () => {
      const answer = await httpRequest(`http://${host}`, { method: 'GET', path: '/v2/' })
      answer.body.resume()
      return answer.status === 401
    },
    120_000,
  )
  return { host, close: daemon.close }
}

export async function startTestDocker(
  dir: string,
): Promise<{ host: string; close(): Promise<void> }> {
  const base = join(dir, 'docker')
  mkdirSync(base, { recursive: true })
  const socket = join(base, 'd.sock')
  const daemon = await start(
    {
      name: 'dockerd',
      command: '/usr/sbin/dockerd',
      args: `--iptables=false --ip6tables=false --bridge=none --log-level=warn --host=unix://${socket}
        --data-root=${base}/data --exec-root=${base}/exec --pidfile=${base}/pid`.split(/\s+/),
      logFile: join(base, 'log'),
      recordFile: join(base, 'record'),
    },
    async () => {
      const answer = await httpRequest(`unix:${socket}`, { method: 'GET', path: '/_ping' })
      answer.body.resume()
      return answer.status === 200
    },
    120_000,
  )
  return {
    host: `unix://${socket}`,
    close: async () => {
      await daemon.close()
      // What its containers and layers left mounted would keep the folder.
      const mounts = readFileSync('/proc/mounts', 'utf8').split('\n')
      for (const line of mounts.toReversed()) {
        const path = line.split(' ')[1]
        if (path?.startsWith(`${base}/`)) await runOk('umount', ['-l', path])
      }
      await systemClock.sleep(50)
    },
  }
}
