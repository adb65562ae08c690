import assert from 'node:assert/strict'
import http from 'node:http'
import { after, before, describe, test } from 'node:test'
import { systemClock } from '#core/clock.ts'
import { newMachineId } from '#core/ids.ts'
import type { LogLine, WakeResult } from '#spec/host-api.ts'
import type { ExecResult, Machine, MachineProcess } from '#spec/machine.ts'
import { readBody } from '#sys/http-client.ts'
import { eventually } from '#sys/test-support.ts'
import { openHostProcess, type HostProcess } from '../../test/support/host-process.ts'

/** A real host process over the real runtime, network, images and volumes. */
describe('a host process', { concurrency: 1 }, () => {
  let host: HostProcess
  const call: HostProcess['call'] = (...args) => host.call(...args)
  const wait = (id: string, state: string) =>
    call('GET', `/v1/machines/${id}/wait?state=${state}&timeout=60`)

  async function create(config: object, input: object = {}): Promise<Machine> {
    const id = newMachineId()
    await call('POST', '/v1/machines', {
      id,
      app: { id: 'app_1', name: 'web', org: 'personal', network: 77 },
      owner: 'tester',
      input: { config: { image: host.image, ...config }, ...input },
    })
    return call('GET', `/v1/machines/${id}`)
  }
  async function logText(id: string): Promise<string> {
    const text = await host.read(`/v1/apps/web/logs?instance=${id}`)
    const lines = text.split('\n').filter(Boolean)
    return lines.map((line) => (JSON.parse(line) as LogLine).message).join('\n')
  }
  const fetchFrom = (ip4: string, port: number): Promise<string> =>
    new Promise((resolve, reject) => {
      http
        .get({ host: ip4, port, agent: false }, (answer) => {
          readBody(answer, 1e5).then((body) => resolve(body.toString()), reject)
        })
        .on('error', reject)
    })

  before(async () => {
    const config = {
      Env: ['FROM_IMAGE=yes', 'PATH=/bin'],
      Cmd: ['sh', '-c', 'echo default; exit 0'],
    }
    host = await openHostProcess({ name: 'hosttest', runtime: 'container', config })
  })
  after(() => host.close())

  test('a command that ends: its output, its exit code, its event', async () => {
    const script = 'echo "$FROM_IMAGE $OURS $(hostname)"; cat /greeting; echo oops >&2; exit 7'
    const { id } = await create({
      env: { OURS: 'ours' },
      init: { cmd: ['sh', '-c', script] },
      restart: { policy: 'no' },
      files: [{ guest_path: '/greeting', raw_value: Buffer.from('hello\n').toString('base64') }],
    })
    await wait(id, 'stopped')
    const machine = await call('GET', `/v1/machines/${id}`)
    const exit = machine.events.find((event) => event.type === 'exit')?.request?.exit_event
    assert.deepEqual([exit?.exit_code, exit?.requested_stop], [7, false])
    const text = await logText(id)
    assert.match(text, new RegExp(`yes ours ${id}\nhello\noops\n`))
    assert.match(text, /Main child exited normally with code: 7$/)
    await call('DELETE', `/v1/machines/${id}`)
  })

  test('a server: ready when it listens, exec, stop, wake on a fresh root, volume kept', async () => {
    const app = { id: 'app_1', name: 'web', org: 'personal', network: 77 }
    await call('POST', '/v1/volumes', { id: 'vol_t', app, input: { name: 'data', size_gb: 1 } })
    const script =
      'echo start >> /data/starts; echo start >> /starts; mkdir -p /www; cat /data/starts /starts > /www/index.html; exec httpd -f -p 8080 -h /www'
    const { id } = await create({
      init: { exec: ['/bin/sh', '-c', script] },
      mounts: [{ volume: 'vol_t', path: '/data' }],
      services: [{ protocol: 'tcp', internal_port: 8080, ports: [{ port: 80 }] }],
    })
    const { row } = await call<WakeResult>('POST', `/v1/machines/${id}/wake`)
    assert.equal(row.ready, true)
    assert.equal(await fetchFrom(row.ip4, 8080), 'start\nstart\n')
    const cmd = `sh -c 'echo out; echo err >&2; exit 3'`
    assert.deepEqual(await call<ExecResult>('POST', `/v1/machines/${id}/exec`, { cmd }), {
      exit_code: 3,
      stdout: 'out\n',
      stderr: 'err\n',
    })
    const processes = await call<MachineProcess[]>('GET', `/v1/machines/${id}/ps`)
    const sockets = processes.flatMap((process) => process.listen_sockets)
    assert.ok(
      sockets.some((socket) => socket.address.endsWith(':8080')),
      JSON.stringify(processes),
    )
    await call('POST', `/v1/machines/${id}/stop`, { signal: 'SIGTERM' })
    await wait(id, 'stopped')
    const began = performance.now()
    const woken = await call<WakeResult>('POST', `/v1/machines/${id}/wake`)
    const took = Math.round(performance.now() - began)
    assert.equal(await fetchFrom(woken.row.ip4, 8080), 'start\nstart\nstart\n')
    assert.equal(woken.row.ip4, row.ip4, 'the address is the machine’s own')
    process.stdout.write(`# a wake took ${took} ms\n`)
    await call('DELETE', `/v1/machines/${id}?kill=true`)
    await wait(id, 'destroyed')
  })

  test('kill -9 of the host: the machine serves on, is adopted, and its end is told', async () => {
    const { id } = await create({
      init: { exec: ['/bin/sh', '-c', 'echo up > /index.html; exec httpd -f -p 8080 -h /'] },
      services: [{ protocol: 'tcp', internal_port: 8080 }],
      restart: { policy: 'no' },
    })
    const { row } = await call<WakeResult>('POST', `/v1/machines/${id}/wake`)
    const [before] = await call<MachineProcess[]>('GET', `/v1/machines/${id}/ps`)
    await host.end('SIGKILL')
    assert.equal(await fetchFrom(row.ip4, 8080), 'up\n')
    await host.start()
    const machine = await call('GET', `/v1/machines/${id}`)
    assert.equal(machine.state, 'started')
    const [adopted] = await call<MachineProcess[]>('GET', `/v1/machines/${id}/ps`)
    assert.equal(adopted?.pid, before?.pid)
    assert.equal(await fetchFrom(row.ip4, 8080), 'up\n')
    await call('POST', `/v1/machines/${id}/signal`, { signal: 'SIGKILL' })
    await wait(id, 'stopped')
    assert.match(
      await logText(id),
      /exited with signal \(with signal 'SIGKILL', core dumped\? false\)/,
    )
  })

  test('kill -9 in the middle of a stop: the next host finishes it', async () => {
    const { id } = await create({
      init: { exec: ['/bin/sh', '-c', `trap '' TERM; while true; do sleep 0.1; done`] },
      stop_config: { signal: 'SIGTERM', timeout: '500ms' },
    })
    await wait(id, 'started')
    await call('POST', `/v1/machines/${id}/stop`, {})
    await host.end('SIGKILL')
    await host.start()
    await wait(id, 'stopped')
    const { events } = await call('GET', `/v1/machines/${id}`)
    assert.equal(events.filter((event) => event.type === 'exit').length, 1)
  })

  test('kill -9 in the middle of a snapshot, a fork and an extension: all are ended, the writer goes on', async () => {
    const app = { id: 'app_1', name: 'web', org: 'personal', network: 77 }
    await call('POST', '/v1/volumes', { id: 'vol_k', app, input: { name: 'data', size_gb: 1 } })
    const script =
      'PATH=/bin:/usr/bin; dd if=/dev/urandom of=/data/blob bs=1M count=32 && md5sum /data/blob > /data/sum && sync; while true; do echo on >> /data/log; sleep 0.05; done'
    const writer = await create({
      init: { exec: ['/bin/sh', '-c', script] },
      mounts: [{ volume: 'vol_k', path: '/data' }],
    })
    await wait(writer.id, 'started')
    const exec = async (cmd: string) =>
      (await call<ExecResult>('POST', `/v1/machines/${writer.id}/exec`, { cmd })).stdout
    const linesOf = async () => Number.parseInt(await exec('busybox wc -l /data/log'), 10)
    await eventually('it writes', async () => (await linesOf()) > 0)
    for (const [round, delayMs] of [0, 150].entries()) {
      const [snapshot, fork] = [`vs_k${round}`, `vol_k${round}`]
      const size_gb = 1 + round
      const source = { kind: 'volume', id: 'vol_k', host_api: host.api, size_gb }
      await call('POST', '/v1/volumes/vol_k/snapshots', { id: snapshot })
      await call('POST', '/v1/volumes', { id: fork, app, input: { name: 'fork' }, source })
      call('PUT', '/v1/volumes/vol_k/extend', { size_gb: size_gb + 1 }).catch(() => {})
      await systemClock.sleep(delayMs)
      await host.end('SIGKILL')
      await host.start()
      for (const path of [`snapshots/${snapshot}`, `volumes/${fork}`, 'volumes/vol_k']) {
        let now: { state?: string; status?: string } = {}
        await eventually(
          () => `${path} is ${now.state ?? now.status}`,
          async () => {
            now = await call('GET', `/v1/${path}`)
            return (now.state ?? now.status) === 'created'
          },
        )
      }
      const before = await linesOf()
      await eventually('the writer goes on', async () => (await linesOf()) > before)
      const reader = await create({
        init: { exec: ['/bin/sh', '-c', 'busybox md5sum -c /data/sum'] },
        restart: { policy: 'no' },
        mounts: [{ volume: fork, path: '/data' }],
      })
      await wait(reader.id, 'stopped')
      assert.match(await logText(reader.id), /blob: OK/)
      await call('DELETE', `/v1/machines/${reader.id}?kill=true`)
      // An extension that was asked for before the kill may have been lost with its answer.
      await call('PUT', '/v1/volumes/vol_k/extend', { size_gb: size_gb + 1 }).catch(() => {})
    }
    await call('DELETE', `/v1/machines/${writer.id}?kill=true`)
    await wait(writer.id, 'destroyed')
    await call('DELETE', '/v1/apps/app_1')
  })

  test('down stops what runs, and the next host starts it again', async () => {
    const { id } = await create({
      init: { exec: ['/bin/sleep', '1000'] },
      stop_config: { timeout: '200ms' },
    })
    await wait(id, 'started')
    await call('POST', '/v1/down')
    assert.equal(await host.end('SIGTERM'), 0)
    await host.start()
    await wait(id, 'started')
  })

  test('what cannot start says why', async () => {
    const missing = await create({ init: { exec: ['/no/such/program'] } })
    await assert.rejects(wait(missing.id, 'started'), /currently failed: .*\/no\/such\/program/s)
    await assert.rejects(create({ image: `${host.registry}/nothing-here` }), /nothing-here/)
  })
})
