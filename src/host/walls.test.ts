import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { randomInt } from 'node:crypto'
import dgram from 'node:dgram'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import net from 'node:net'
import { networkInterfaces } from 'node:os'
import { join, resolve } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { machine6pn } from '#core/addresses.ts'
import { systemClock } from '#core/clock.ts'
import { newMachineId } from '#core/ids.ts'
import { openHostNet, type Attachment, type HostNet } from '#host/net/index.ts'
import {
  openContainerDriver,
  openQemuDriver,
  type Driver,
  type StartSpec,
} from '#host/runtime/index.ts'
import { openWorkshop, type Workshop } from '#host/runtime/test-support.ts'
import { createLogger } from '#sys/log.ts'
import { run, runOk } from '#sys/process.ts'
import { eventually } from '#sys/test-support.ts'
import {
  addressBytes,
  arp,
  behindOptions,
  broadcastMac,
  ethernet,
  etherTypes,
  fragment,
  icmp6,
  ip6,
  ndp,
  ndpBody,
  protocols,
  tagged,
  udp,
  type Ends,
} from './crafted-frames.ts'

/**
 * A machine that tries to reach what it may not, from inside: a container and a VM, over the real network of a host.
 * Whether something arrived is asked of whoever it was sent to, not of the sender.
 */

const log = createLogger('test')
const port = 8080
const hostMac = '02:fa:00:00:00:01'
const ownMac = '02:fa:00:00:00:02'
const allNodes = 'ff02::1'
const copies = 5

const corner = randomInt(0, 1 << 12)
const hostOptions = (n: number) => ({
  hostId: `walls-${process.pid}-${n}`,
  hostNumber: 2_000_000 + corner * 4 + n,
  ipv4Block: `10.${32 + (corner % 32)}.${((corner >> 5) % 64) * 4 + n}.0/24`,
  log,
})
const gateway4 = hostOptions(0).ipv4Block.replace(/0\/24$/, '1')
const worldName = `hgrworld-walls-${process.pid}`
const world = { near: `198.19.${corner % 256}.1`, far: `198.19.${corner % 256}.2` }

let shop: Workshop
let first: HostNet
let second: HostNet
let friend: Attachment, stranger: Attachment, elsewhere: Attachment
const children: ChildProcess[] = []
const host = { packets: 0, port: 0, addresses: [] as string[] }
const closers: (() => void)[] = []

function serve(namespace: string): void {
  const args = ['netns', 'exec', namespace, 'busybox', 'httpd', '-f', '-p', `[::]:${port}`]
  children.push(spawn('ip', [...args, '-h', '/sys/class/net'], { stdio: 'ignore' }))
}

/** Answers whatever it is asked with 192.0.2.7. */
const nameServer = `
  const socket = require('node:dgram').createSocket('udp4').bind(53)
  const answer = Buffer.from('c00c00010001000000050004c0000207', 'hex')
  socket.on('message', (question, { port, address }) => {
    const head = Buffer.from('81800001000100000000', 'hex')
    const parts = [question.subarray(0, 2), head, question.subarray(12), answer]
    socket.send(Buffer.concat(parts), port, address)
  })`

/** Somebody outside who answers, and who has no way back to a machine's own address. */
async function openWorld(): Promise<void> {
  const link = `hw${process.pid}`.slice(0, 15)
  const lines = `netns add ${worldName}
    link add ${link} type veth peer name eth0 netns ${worldName}
    link set ${link} addrgenmode none up
    address add ${world.near}/30 dev ${link}`
  await runOk('ip', ['-batch', '-'], { input: lines })
  const inside = `link set eth0 addrgenmode none up\naddress add ${world.far}/30 dev eth0\n`
  await runOk('ip', ['-n', worldName, '-batch', '-'], { input: inside })
  serve(worldName)
  const program = ['ip', 'netns', 'exec', worldName, process.execPath, '-e', nameServer]
  children.push(spawn(program[0] ?? '', program.slice(1), { stdio: 'ignore' }))
}

/** What listens on all addresses of the host stands for its API, its PostgreSQL and its NATS. */
async function openHost(): Promise<void> {
  const server = net.createServer((socket) => {
    host.packets++
    socket.destroy()
  })
  server.listen(0, '::')
  await once(server, 'listening')
  host.port = (server.address() as net.AddressInfo).port
  const socket = dgram.createSocket({ type: 'udp6' })
  socket.on('message', () => host.packets++).bind(host.port)
  await once(socket, 'listening')
  closers.push(
    () => server.close(),
    () => socket.close(),
  )
  const rows = Object.entries(networkInterfaces()).filter(([name]) => /^(eth|en|wl)/.test(name))
  const uplink = rows.flatMap(([, found]) => found ?? []).filter(({ scopeid }) => !scopeid)
  // Other addresses may be those of tests beside this one, and gone the next moment.
  const own = [gateway4, machine6pn(0, hostOptions(0).hostNumber, 0), world.near]
  host.addresses = [...own, ...uplink.map(({ address }) => address)]
}

before(async () => {
  shop = await openWorkshop()
  first = await openHostNet(hostOptions(0))
  second = await openHostNet(hostOptions(1))
  friend = await first.attach({ id: newMachineId(), network: 24, index: 1 })
  stranger = await first.attach({ id: newMachineId(), network: 25, index: 2 })
  elsewhere = await second.attach({ id: newMachineId(), network: 26, index: 0 })
  await openWorld()
  for (const { netnsName } of [friend, stranger, elsewhere]) serve(netnsName)
  await openHost()
  const source = join(import.meta.dirname, 'send-frames.c')
  await runOk('musl-gcc', [
    '-static',
    '-Os',
    '-s',
    '-idirafter',
    '/usr/include',
    '-idirafter',
    `/usr/include/${(await runOk('gcc', ['-print-multiarch'])).trim()}`,
    '-o',
    join(shop.dir, 'send-frames'),
    source,
  ])
})
after(async () => {
  for (const close of closers) close()
  for (const child of children) child.kill('SIGKILL')
  await run('ip', ['netns', 'delete', worldName])
  await first.destroyAll()
  await second.destroyAll()
  await shop.close()
})

/** Packets that came to a machine's link so far, whatever they were. */
async function arrivedAt({ netnsName }: Pick<Attachment, 'netnsName'>): Promise<number> {
  const words = await runOk('ip', ['-n', netnsName, '-j', '-s', 'link', 'show', 'eth0'])
  const [link] = JSON.parse(words) as { stats64: { rx: { packets: number } } }[]
  return link?.stats64.rx.packets ?? -1
}

const arrivals = async () => [
  host.packets,
  ...(await Promise.all([friend, stranger, elsewhere, { netnsName: worldName }].map(arrivedAt))),
]

interface Trick {
  name: string
  frame: string
  /** Which wall it meets; a spoofing VM meets that of its own link before. */
  wall: 'spoofed' | 'to_host' | 'to_machines' | 'foreign'
}

/** All that a machine with these addresses may not send. */
function tricks(me: Attachment): Trick[] {
  const frame = (type: number, payload: Buffer, ends: Partial<Ends> = {}) =>
    ethernet({ from: ownMac, to: hostMac, ...ends }, type, payload)
  const by4 = (from: string, to: string) => frame(etherTypes.ip4, udp({ from, to }, host.port))
  const by6 = (from: string, to: string) => frame(etherTypes.ip6, udp({ from, to }, host.port))
  const listed: [string, Trick['wall'], string][] = [
    ['metadata of a cloud', 'to_host', by4(me.ip4, '169.254.169.254')],
    ['link-local IPv4', 'to_host', by4(me.ip4, '169.254.1.1')],
    ['loopback on the wire', 'to_host', by4(me.ip4, '127.0.0.1')],
    ['everybody on the link', 'to_host', by4(me.ip4, '255.255.255.255')],
    ['the host by its link', 'to_host', by6('fe80::2', 'fe80::1')],
    ['another machine by IPv4', 'to_machines', by4(me.ip4, stranger.ip4)],
    ['its own network by IPv4', 'to_machines', by4(me.ip4, friend.ip4)],
    ['another host by IPv4', 'to_machines', by4(me.ip4, elsewhere.ip4)],
    ['another network', 'to_machines', by6(me.ip6, stranger.ip6)],
    ['another network of another host', 'to_machines', by6(me.ip6, elsewhere.ip6)],
    ['IPv6 to outside', 'to_machines', by6(me.ip6, '2001:db8::1')],
    ['a fragment to another network', 'to_machines', fragmentTo(stranger.ip6)],
    ['options to another network', 'to_machines', optionsTo(stranger.ip6)],
    ['spoofed IPv4, to outside', 'spoofed', by4('203.0.113.9', world.far)],
    ['another machine’s IPv4', 'spoofed', by4(friend.ip4, world.far)],
    ['the host’s own IPv4', 'spoofed', by4(gateway4, world.far)],
    ['loopback as a source', 'spoofed', by4('127.0.0.1', gateway4)],
    ['a stranger’s name in its network', 'spoofed', by6(elsewhere.ip6, stranger.ip6)],
    ['a friend’s name', 'spoofed', by6(stranger.ip6, stranger.ip6)],
    ['its link’s name outside the link', 'spoofed', by6('fe80::2', friend.ip6)],
    ['NDP in a stranger’s name', 'spoofed', neighbour(stranger.ip6, stranger.ip6, ndp.solicit)],
    ['NDP with any link-local name', 'spoofed', neighbour('fe80::99', 'fe80::1', ndp.solicit)],
    ['a router', 'to_host', frame(etherTypes.ip6, router('fe80::2'))],
    ['a neighbour it is not', 'to_host', neighbour('fe80::2', allNodes, ndp.advertise)],
    ['a question for others', 'to_host', neighbour('fe80::2', 'ff02::1:ff00:9', ndp.solicit)],
    ['ARP in another’s name', 'spoofed', whoHas(friend.ip4, friend.ip4)],
    ['ARP in a stranger’s name', 'spoofed', whoHas('203.0.113.9', gateway4)],
    ['ARP for another address of the host', 'spoofed', whoHas(me.ip4, world.near)],
    [
      'an answer that nobody asked for',
      'spoofed',
      frame(etherTypes.arp, arp(2, { from: gateway4, to: me.ip4, mac: ownMac })),
    ],
    [
      'a tag',
      'foreign',
      frame(
        etherTypes.vlan,
        tagged(7, etherTypes.ip4, udp({ from: me.ip4, to: gateway4 }, host.port)),
      ),
    ],
    [
      'another protocol',
      'foreign',
      frame(etherTypes.other, Buffer.alloc(60, 1), { to: broadcastMac }),
    ],
    ...host.addresses.map((to): [string, Trick['wall'], string] => [
      `the host as ${to}`,
      'to_host',
      net.isIPv4(to) ? by4(me.ip4, to) : by6(me.ip6, to),
    ]),
  ]
  return listed.map(([name, wall, hex]) => ({ name, wall, frame: hex }))

  function neighbour(from: string, to: string, type: number): string {
    const body = Buffer.concat([
      ndpBody(stranger.ip6),
      Buffer.from([1, 1]),
      addressBytes('fe80::5').subarray(10),
    ])
    return frame(
      etherTypes.ip6,
      ip6({ from, to }, protocols.icmp6, icmp6({ from, to }, type, body)),
    )
  }
  function router(from: string): Buffer {
    const ends = { from, to: allNodes }
    const body = Buffer.concat([Buffer.from([64, 0, 0xff, 0xff]), Buffer.alloc(8)])
    return ip6(ends, protocols.icmp6, icmp6(ends, ndp.routerAdvertisement, body))
  }
  function whoHas(from: string, to: string): string {
    return frame(etherTypes.arp, arp(1, { from, to, mac: ownMac }), { to: broadcastMac })
  }
  function datagramTo(to: string): Buffer {
    return udp({ from: me.ip6, to }, port).subarray(40)
  }
  function fragmentTo(to: string): string {
    const whole = fragment(protocols.udp, 0, datagramTo(to))
    whole[3] = 0 // The first and the last.
    return frame(etherTypes.ip6, ip6({ from: me.ip6, to }, protocols.fragment, whole))
  }
  function optionsTo(to: string): string {
    const inside = behindOptions(protocols.udp, datagramTo(to))
    return frame(etherTypes.ip6, ip6({ from: me.ip6, to }, protocols.destinationOptions, inside))
  }
}

const drivers: Record<string, () => Driver> = {
  container: () =>
    openContainerDriver({
      dir: join(shop.dir, 'containers'),
      hostId: `walls-${process.pid}`,
      keepImages: () => [],
      log,
    }),
  VM: () =>
    openQemuDriver({
      dir: join(shop.dir, 'vms'),
      hostId: `walls-${process.pid}`,
      kernelCacheDir: resolve(import.meta.dirname, '../../build/kernel'),
      log,
    }),
}

Object.entries(drivers).forEach(([kind, open], i) => {
  describe(`the walls around a ${kind}`, { concurrency: 1 }, () => {
    let driver: Driver
    let spec: StartSpec
    let me: Attachment
    before(async () => {
      driver = open()
      assert.ok((await driver.probe()).ok)
      const id = newMachineId()
      me = await first.attach({ id, network: 24, index: 10 + i })
      const content = readFileSync(join(shop.dir, 'send-frames'))
      spec = shop.spec(['sh', '-c', `echo mine > /tmp/page; exec httpd -f -p ${port} -h /tmp`], {
        id,
        netnsPath: me.netnsPath,
        resolvConf: `nameserver ${world.far}\n`,
        files: [{ path: '/send-frames', content, mode: 0o755 }],
      })
      await driver.start(spec)
      await eventually('it listens', async () => (await page(me.ip4)) !== undefined)
    })
    after(async () => {
      await driver.destroy(spec.id)
      driver.close()
    })

    const exec = (script: string) =>
      driver.exec(spec.id, { argv: ['sh', '-c', script], timeoutMs: 60_000, outputBytesMax: 9_999 })
    const page = (address: string) =>
      fetch(`http://${address.includes(':') ? `[${address}]` : address}:${port}/page`, {
        signal: AbortSignal.timeout(5_000),
      }).then(
        (response) => response.text(),
        () => undefined,
      )
    const dropped = async () => {
      const { machines, ...byWall } = await first.dropped()
      const before = (await driver.spoofed?.(spec.id)) ?? 0
      return { ...byWall, ofMachine: (machines.get(spec.id) ?? 0) + before, before }
    }

    test('what is allowed works', async () => {
      assert.equal(await page(me.ip4), 'mine\n')
      assert.equal(await page(me.ip6), 'mine\n')
      // Its own network, and outside under the address of the host: there is no way back to its own.
      const asked = (to: string) =>
        `printf 'GET /lo/ifindex HTTP/1.0\\r\\n\\r\\n' | nc ${to} ${port}`
      for (const [script, answer] of [
        [asked(friend.ip6), /^HTTP\/1.1 200 OK.*\n1\n/s],
        [asked(world.far), /^HTTP\/1.1 200 OK.*\n1\n/s],
        ['busybox nslookup example.test', /Address:\s+192\.0\.2\.7/],
      ] as const) {
        let said = ''
        await eventually(
          () => `${script}: ${said}`,
          async () => {
            const { stdout, stderr } = await exec(script)
            said = stdout + stderr
            return answer.test(stdout)
          },
        )
      }
      assert.equal((await dropped()).ofMachine, 0, 'what its kernel says on its link is no trick')
    })

    /** What the network says before and after some frames are sent, as differences. */
    const watched = async (frames: readonly { name: string; frame: string }[]) => {
      const look = async () => ({ ...(await dropped()), there: await arrivals() })
      const seen = []
      let last = await look()
      for (const { name, frame } of frames) {
        const { exitCode, stderr } = await exec(`/send-frames eth0 ${copies} ${frame}`)
        assert.equal(exitCode, 0, `${name}: ${stderr}`)
        const before = last
        let now = await look()
        const more = (key: keyof Omit<typeof now, 'there'>) => now[key] - before[key]
        // A link has a packet of its own now and then.
        const came = () =>
          now.there.some((packets, at) => packets - (before.there[at] ?? 0) >= copies)
        // On a busy machine they are under way for a while.
        for (let tries = 0; tries < 400 && more('ofMachine') < copies && !came(); tries++) {
          await systemClock.sleep(50)
          now = await look()
        }
        const arrived = came()
        seen.push({ more, arrived })
        last = now
      }
      return seen
    }

    test('nothing arrives that may not, and all of it is counted', async () => {
      const all = tricks(me)
      const seen = await watched(all)
      const wrong = all.flatMap(({ name, wall }, at) => {
        const { more, arrived } = seen[at] ?? assert.fail()
        const counted = more(wall) + more('before') >= copies && more('ofMachine') >= copies
        return arrived || !counted ? [`${name}: ${arrived ? 'arrived' : 'not counted'}`] : []
      })
      assert.deepEqual(wrong, [])
    })

    test('the same frames arrive, and are counted nowhere, where they may', async () => {
      const ends = { from: ownMac, to: hostMac }
      const seen = await watched([
        {
          name: 'its own network',
          frame: ethernet(ends, etherTypes.ip6, udp({ from: me.ip6, to: friend.ip6 }, 9)),
        },
        {
          name: 'outside',
          frame: ethernet(ends, etherTypes.ip4, udp({ from: me.ip4, to: world.far }, 9)),
        },
      ])
      assert.deepEqual(
        seen.map(({ more, arrived }) => [arrived, more('ofMachine') >= copies]),
        [
          [true, false],
          [true, false],
        ],
      )
    })
  })
})
