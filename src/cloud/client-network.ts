import { existsSync, writeFileSync } from 'node:fs'
import { clientNetworkOf, type ClientNetwork } from '#core/client-network.ts'
import { Fault } from '#core/fault.ts'
import { findDaemon } from '#sys/daemon.ts'
import { readTextFile } from '#sys/files.ts'
import { run, runOk } from '#sys/process.ts'
import { withFileLock } from '#sys/file-lock.ts'
import type { Home } from './home.ts'
import { readState } from './state.ts'
import { homeLock, requireRoot } from './up.ts'

const waitForOthersMs = 60_000

/**
 * Makes the network in which wrappers run clients (`core/client-network.ts`), or finds it complete: nothing of it is a
 * process, so nothing of it has to be watched. It goes with `down`. Faults: `conflict` when the cloud does not run;
 * `native_failed`.
 */
export async function openClientNetwork(home: Home): Promise<ClientNetwork> {
  requireRoot('hangar isolate')
  const state = readState(home)
  if (!state) throw new Fault('not_found', `${home.dir} holds no cloud yet; start one: hangar up`)
  const network = clientNetworkOf(state.cloud_id)
  const lock = { ...homeLock(home, 'hangar isolate'), waitMs: waitForOthersMs }
  return await withFileLock(lock, async () => {
    if (!findDaemon(home.record('control'))) {
      throw new Fault('conflict', `the cloud in ${home.dir} does not run; start it: hangar up`)
    }
    if (readTextFile(alias(network))?.trim() === network.mark) return network
    await removeClientNetwork(state.cloud_id)
    try {
      await build(network, state.ports.api)
      await tryOut(network, state.ports.api)
      // Written last: a link without it is rebuilt.
      writeFileSync(alias(network), network.mark)
    } catch (error) {
      await removeClientNetwork(state.cloud_id)
      throw error
    }
    return network
  })
}

/** True when there was something of it. */
export async function removeClientNetwork(cloudId: string): Promise<boolean> {
  const { link, netns } = clientNetworkOf(cloudId)
  const hasLink = existsSync(`/sys/class/net/${link}`)
  const hasNetns = existsSync(netnsFile(netns))
  if (hasLink) await runOk('ip', ['link', 'delete', link])
  if (hasNetns) await runOk('ip', ['netns', 'delete', netns])
  // Made before the link and removed after it.
  const table = await run('nft', ['delete', 'table', 'inet', netns])
  return hasLink || hasNetns || table.code === 0
}

const netnsFile = (netns: string) => `/run/netns/${netns}`
const alias = ({ link }: ClientNetwork) => `/sys/class/net/${link}/ifalias`

async function build(network: ClientNetwork, apiPort: number): Promise<void> {
  const { netns, link, inside, outside } = network
  const within = (...words: string[]) => ['--net=' + netnsFile(netns), ...words]
  const batch = (lines: string[]) => ({ input: `${lines.join('\n')}\n` })
  await runOk('nft', ['-f', '-'], { input: machineRules(network, apiPort) })
  await runOk(
    'ip',
    ['-batch', '-'],
    batch([
      `netns add ${netns}`,
      `link add ${link} type veth peer name eth0 netns ${netns}`,
      `link set ${link} addrgenmode none up`,
      `address add ${outside}/32 dev ${link}`,
      `route add ${inside}/32 dev ${link} src ${outside}`,
    ]),
  )
  await runOk(
    'ip',
    ['-n', netns, '-batch', '-'],
    batch([
      'link set lo up',
      'link set eth0 addrgenmode none up',
      `address add ${inside}/32 dev eth0`,
      `route add default via ${outside} dev eth0 onlink`,
    ]),
  )
  // Both ends carry packets from and to 127.0.0.1, which the kernel otherwise drops on any link.
  writeFileSync(`/proc/sys/net/ipv4/conf/${link}/route_localnet`, '1')
  await runOk('nsenter', within('sysctl', '-qw', 'net.ipv4.conf.eth0.route_localnet=1'))
  await runOk('nsenter', within('nft', '-f', '-'), { input: clientRules(network) })
}

/** On the machine: what comes by the link may speak to the machine itself. All else is refused at once, not forwarded. */
const machineRules = ({ netns, link, outside }: ClientNetwork, apiPort: number) => `
add table inet ${netns}
delete table inet ${netns}
table inet ${netns} {
  chain to_machine {
    type nat hook prerouting priority -100; policy accept;
    iifname != "${link}" accept
    ip daddr ${outside} udp dport 53 dnat ip to 127.0.0.1:${apiPort}
    ip daddr ${outside} dnat ip to 127.0.0.1
  }
  chain nobody_else {
    type filter hook prerouting priority -50; policy accept;
    iifname != "${link}" accept
    fib daddr type local accept
    meta l4proto tcp reject with tcp reset
    reject with icmpx no-route
  }
}
`

/**
 * Inside: 127.0.0.1 is the machine's, whatever the port. Every question for a name goes to the cloud, whichever resolver
 * the client was told to ask, so that a resolver which does not answer holds nobody up.
 */
const clientRules = ({ netns, outside }: ClientNetwork) => `
table inet ${netns} {
  chain to_machine {
    type nat hook output priority -100; policy accept;
    udp dport 53 dnat ip to ${outside}
    ip daddr 127.0.0.1 dnat ip to ${outside}
  }
  chain from_eth0 {
    type nat hook postrouting priority 100; policy accept;
    oifname "eth0" masquerade
  }
  chain nobody_else {
    type filter hook output priority 0; policy accept;
    tcp dport 53 reject with tcp reset
  }
}
`

const knock = `
const socket = require('node:net').connect(Number(process.argv[1]), '127.0.0.1')
socket.setTimeout(5000, () => process.exit(1))
socket.on('error', () => process.exit(1))
socket.on('connect', () => process.exit(0))`

/** A firewall of the machine's own may drop what comes by the link, and our rules cannot overrule it. */
async function tryOut({ netns, link }: ClientNetwork, apiPort: number): Promise<void> {
  const args = [`--net=${netnsFile(netns)}`, process.execPath, '-e', knock, String(apiPort)]
  const { code } = await run('nsenter', args, { timeoutMs: 15_000 })
  if (code === 0) return
  throw new Fault(
    'native_failed',
    `the API on port ${apiPort} cannot be reached from the isolated network; if a firewall runs on this machine, let it accept what comes in by ${link} (ufw: ufw allow in on ${link})`,
  )
}
