import { lookup } from 'node:dns/promises'
import { run } from '#sys/process.ts'
import { chooseFreePort } from '#sys/ports.ts'
import type { CloudConfig } from '#spec/settings.ts'
import { fail, ok, warn, type Finding } from './finding.ts'

async function checkNft(): Promise<Finding> {
  const result = await run('nft', ['list', 'tables']).catch(() => undefined)
  return result?.code === 0
    ? ok('packet filter', 'nft works')
    : fail(
        'packet filter',
        `nft does not work: ${result?.stderr.trim().split('\n')[0] ?? 'not installed'}`,
        'machines have no network and are not kept apart',
        'scripts/setup; run as root; in a container: give it CAP_NET_ADMIN',
      )
}

/** Another program's "drop what is forwarded" wins over our "accept", in whatever table it stands. Pure. */
export function judgeForwarding(ruleset: string): Finding {
  const dropping = [...ruleset.matchAll(/hook forward[^;]*;\s*policy drop/g)].length > 0
  return dropping
    ? warn(
        'forwarding',
        'another program (a docker, a firewall) drops forwarded packets',
        'machines may not reach the internet',
        'allow what comes from and goes to Hangar’s interfaces there, for example in the chain DOCKER-USER',
      )
    : ok('forwarding', 'nobody drops forwarded packets')
}

async function checkForwarding(): Promise<Finding[]> {
  const rules = await run('nft', ['list', 'ruleset']).catch(() => undefined)
  return rules?.code === 0 ? [judgeForwarding(rules.stdout)] : []
}

async function checkResolver(domain: string): Promise<Finding> {
  const name = `hello.${domain}`
  try {
    const { address } = await lookup(name)
    return ok('resolver', `${name} is ${address}`)
  } catch {
    return warn(
      'resolver',
      `${name} is not resolved by this system (curl and browsers do it themselves for *.localhost)`,
      'other programs do not find your apps by name',
      `use curl or a browser; or add to /etc/hosts: 127.0.0.1 ${name}; or install libnss-myhostname`,
    )
  }
}

async function checkPorts(config: CloudConfig): Promise<Finding> {
  const moved: string[] = []
  for (const [name, wanted] of Object.entries(config.ports)) {
    const port = await chooseFreePort(wanted)
    if (port !== wanted) moved.push(`${wanted} (${name}) is taken, ${port} would be used`)
  }
  return moved.length === 0
    ? ok('ports', `${Object.values(config.ports).join(', ')} are free`)
    : warn(
        'ports',
        moved.join('; '),
        'addresses carry a port number',
        'stop the other program (ss -ltnp shows it) before the first hangar up',
      )
}

export async function checkNetwork(options: {
  config: CloudConfig
  /** Its ports are its own then. */
  cloudKept: boolean
}): Promise<Finding[]> {
  const { config, cloudKept } = options
  return [
    await checkNft(),
    ...(await checkForwarding()),
    await checkResolver(config.domain),
    ...(cloudKept ? [] : [await checkPorts(config)]),
  ]
}
