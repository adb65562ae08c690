import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { existsSync, readdirSync } from 'node:fs'
import net from 'node:net'
import { after, before, describe, test } from 'node:test'
import { newMachineId } from '#core/ids.ts'
import { createLogger } from '#sys/log.ts'
import { run, runOk } from '#sys/process.ts'
import { eventually } from '#sys/test-support.ts'
import { addressingOf } from './addressing.ts'
import { openHostNet, type Attachment, type HostNet } from './host-net.ts'

const log = createLogger('test')
const port = 8080

/** A random corner of the benchmarking block, so that tests side by side do not meet. */
const corner = randomInt(0, 1 << 12)
const hostOptions = (n: number) => ({
  hostId: `nettest-${process.pid}-${n}`,
  hostNumber: 1_000_000 + corner * 4 + n,
  // Below 10.64: no cloud of this machine chooses there.
  ipv4Block: `10.${32 + (corner % 32)}.${((corner >> 5) % 64) * 4 + n}.0/24`,
  log,
})

describe('host network', { concurrency: 1 }, () => {
  const servers: ChildProcess[] = []
  const firstOptions = hostOptions(0)
  let first: HostNet
  let second: HostNet
  let a: Attachment, b: Attachment, stranger: Attachment, elsewhere: Attachment
  const ids = [newMachineId(), newMachineId(), newMachineId(), newMachineId()] as const

  before(async () => {
    first = await openHostNet(firstOptions)
    second = await openHostNet(hostOptions(1))
    a = await first.attach({ id: ids[0], network: 24, index: 0 })
    b = await first.attach({ id: ids[1], network: 24, index: 1 })
    stranger = await first.attach({ id: ids[2], network: 25, index: 2 })
    elsewhere = await second.attach({ id: ids[3], network: 24, index: 0 })
    for (const at of [a, b, stranger, elsewhere]) serve(at)
    for (const at of [a, b, stranger, elsewhere])
      await eventually('it listens', () => reach(at.ip4))
  })
  after(async () => {
    for (const server of servers) server.kill('SIGKILL')
    await first.destroyAll()
    await second.destroyAll()
  })

  /** A server on all addresses of a machine, answering with anything. */
  function serve(at: Attachment): void {
    const args = ['netns', 'exec', at.netnsName, 'busybox', 'httpd', '-f', '-p', `[::]:${port}`]
    servers.push(spawn('ip', [...args, '-h', '/sys/class/net'], { stdio: 'ignore' }))
  }
  /** Whether a TCP connection from the host succeeds. */
  const reach = (address: string) =>
    new Promise<boolean>((resolve) => {
      const socket = net.connect({ host: address, port, timeout: 10_000 })
      const done = (yes: boolean) => {
        socket.destroy()
        resolve(yes)
      }
      socket.on('connect', () => done(true))
      socket.on('error', () => done(false))
      socket.on('timeout', () => done(false))
    })
  const inside = (at: Attachment, ...argv: string[]) =>
    run('ip', ['netns', 'exec', at.netnsName, ...argv], { timeoutMs: 60_000 })
  /** Whether a TCP connection from a machine succeeds, within `ms`. */
  const connects = async (
    from: Attachment,
    address: string,
    { toPort = port, bind, ms = 700 }: { toPort?: number; bind?: string; ms?: number } = {},
  ) => {
    const script =
      'const [host,port,timeout,localAddress]=process.argv.slice(1);const s=require("net").connect({host,port,localAddress,timeout:+timeout});' +
      's.on("connect",()=>process.exit(0)).on("error",()=>process.exit(1)).on("timeout",()=>process.exit(2))'
    const argv = [process.execPath, '-e', script, address, String(toPort), String(ms)]
    const result = await inside(from, ...argv, ...(bind ? [bind] : []))
    return result.code === 0
  }
  const assertConnects = async (from: Attachment, address: string, why = 'it connects') =>
    assert.equal(await connects(from, address, { ms: 30_000 }), true, why)
  async function counter(name: string): Promise<number> {
    const table = addressingOf(firstOptions).table
    const text = await runOk('nft', ['-j', 'list', 'counter', 'inet', table, name])
    const parsed = JSON.parse(text) as { nftables: { counter?: { packets: number } }[] }
    return parsed.nftables.find((object) => object.counter)?.counter?.packets ?? -1
  }

  test('the host reaches a machine by both addresses', async () => {
    assert.equal(await reach(a.ip4), true)
    assert.equal(await reach(a.ip6), true)
    assert.match(a.ip6, /^fdaa:0:18:[0-9a-f:]+$/)
    assert.equal(a.ip6.split(':').length, 8)
  })

  test('machines of one network reach each other by 6PN, on this host and the next', async () => {
    await assertConnects(a, b.ip6)
    await assertConnects(a, elsewhere.ip6)
    await assertConnects(elsewhere, b.ip6)
  })

  test('machines of different networks do not, nor any by IPv4', async () => {
    const before = await counter('to_machines')
    assert.equal(await connects(a, stranger.ip6), false)
    assert.equal(await connects(elsewhere, stranger.ip6), false)
    assert.equal(await connects(a, b.ip4), false)
    assert.equal(await connects(a, elsewhere.ip4), false)
    assert.ok((await counter('to_machines')) > before)
  })

  test('a machine reaches no service of the host', async () => {
    const server = net.createServer().listen(0, '::')
    await new Promise((resolve) => server.once('listening', resolve))
    const { port: hostPort } = server.address() as net.AddressInfo
    const { gateway4, gateway6 } = addressingOf(firstOptions)
    const before = await counter('to_host')
    try {
      assert.equal(await connects(a, gateway4, { toPort: hostPort }), false)
      assert.equal(await connects(a, gateway6, { toPort: hostPort }), false)
      assert.equal(await connects(a, 'fe80::1%eth0', { toPort: hostPort }), false)
      const addresses = (await runOk('hostname', ['-I'])).split(/\s+/)
      const own = addresses.find((address) => /^\d+\.\d+\.\d+\.\d+$/.test(address))
      if (own) assert.equal(await connects(a, own, { toPort: hostPort }), false)
    } finally {
      server.close()
    }
    assert.ok((await counter('to_host')) > before)
  })

  test('a foreign source address is dropped and counted', async () => {
    const before = await counter('spoofed')
    await runOk('ip', ['-n', a.netnsName, 'address', 'add', stranger.ip6, 'dev', 'eth0', 'nodad'])
    await runOk('ip', ['-n', a.netnsName, 'address', 'add', '203.0.113.9/32', 'dev', 'eth0'])
    assert.equal(await connects(a, elsewhere.ip6, { bind: stranger.ip6 }), false)
    assert.equal(await connects(a, '198.51.100.1', { bind: '203.0.113.9' }), false)
    assert.ok((await counter('spoofed')) > before + 1)
  })

  test('what lies behind the uplink is reached under the address of the host', async () => {
    const world = `hgrworld-${process.pid}`
    const link = `hw${process.pid}`.slice(0, 15)
    const base = `198.18.${corner % 256}.${(corner >> 8) * 16}`
    const [near, far] = [
      base.replace(/\d+$/, (n) => `${+n + 1}`),
      base.replace(/\d+$/, (n) => `${+n + 2}`),
    ]
    const script = `netns add ${world}
      link add ${link} type veth peer name eth0 netns ${world}
      link set ${link} up
      address add ${near}/30 dev ${link}`
    await runOk('ip', ['-batch', '-'], { input: script })
    try {
      const setup = `link set eth0 up\naddress add ${far}/30 dev eth0\n`
      await runOk('ip', ['-n', world, '-batch', '-'], { input: setup })
      serve({ ...a, netnsName: world })
      await eventually('it listens', () => reach(far))
      await assertConnects(a, far)
      // The other end has no route back to the machines: it answered the host.
      assert.equal((await run('ip', ['-n', world, 'route', 'get', a.ip4])).code !== 0, true)
      assert.equal(await connects({ ...a, netnsName: world }, a.ip4), false)
      const metadata = await connects(a, '169.254.169.254', { toPort: 80 })
      assert.equal(metadata, false)
    } finally {
      await run('ip', ['netns', 'delete', world])
    }
  })

  test('a second attach changes nothing, and a half-made link is made whole', async () => {
    const index = (name: string) => runOk('cat', [`/sys/class/net/${name}/ifindex`])
    const link = addressingOf(firstOptions).linkName(ids[0])
    const before = await index(link)
    const reopened = await openHostNet(firstOptions)
    assert.deepEqual(await reopened.attach({ id: ids[0], network: 24, index: 0 }), a)
    assert.equal(await index(link), before)
    await assertConnects(a, b.ip6, 'the filter of a reopened host knows its networks')
    const id = newMachineId()
    await runOk('ip', ['netns', 'add', addressingOf(firstOptions).netnsName(id)])
    const made = await reopened.attach({ id, network: 24, index: 9 })
    assert.equal((await inside(made, 'ip', 'route', 'get', '192.0.2.1')).code, 0)
    await reopened.detach(id)
    await reopened.detach(id)
    assert.ok(!existsSync(made.netnsPath))
  })

  test('keepOnly removes the others of this host, destroyAll all of it', async () => {
    await first.keepOnly([ids[0]])
    assert.ok(existsSync(a.netnsPath))
    assert.ok(!existsSync(b.netnsPath))
    assert.ok(existsSync(elsewhere.netnsPath), 'another host keeps its own')
    assert.equal(await reach(a.ip6), true)
    await first.destroyAll()
    const { linkPrefix, table, gateway4 } = addressingOf(firstOptions)
    assert.deepEqual(
      readdirSync('/sys/class/net').filter((name) => name.startsWith(linkPrefix)),
      [],
    )
    assert.notEqual((await run('nft', ['list', 'table', 'inet', table])).code, 0)
    assert.ok(!(await runOk('ip', ['address', 'show', 'dev', 'lo'])).includes(gateway4))
    assert.equal(await reach(elsewhere.ip6), true)
    await first.destroyAll()
  })
})
