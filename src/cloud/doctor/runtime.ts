import { accessSync, constants } from 'node:fs'
import { join } from 'node:path'
import type { CloudConfig } from '#spec/settings.ts'
import type { HostInfo } from '#spec/host-api.ts'
import { callJson } from '#sys/http-client.ts'
import { clusterKeyOf } from '../authority.ts'
import { childEnvironment } from '../environment.ts'
import type { Home } from '../home.ts'
import { hostSocket } from '../roles.ts'
import { readState } from '../state.ts'
import { ok, warn, type Finding } from './finding.ts'

const weaker = 'machines share the kernel of their host: a weaker wall than a VM'
export const qemuProgram = process.arch === 'arm64' ? 'qemu-system-aarch64' : 'qemu-system-x86_64'

/** Whether it is on the path of what the cloud starts. */
export function hasQemu(): boolean {
  const folders = (childEnvironment()['PATH'] ?? '').split(':')
  return folders.some((dir) => mayUse(join(dir, qemuProgram), constants.X_OK))
}

function mayUse(path: string, how: number): boolean {
  try {
    accessSync(path, how)
    return true
  } catch {
    return false
  }
}

/** What VMs need. Pure. */
export function judgeVms(found: { qemu: boolean; kvm: boolean }): Finding {
  if (!found.qemu) {
    const remedy = 'scripts/setup, then hangar down and hangar up'
    return warn('VMs', `${qemuProgram} is not installed`, weaker, remedy)
  }
  return found.kvm
    ? ok('VMs', 'QEMU is installed, /dev/kvm opens; a host boots a guest before it believes that')
    : warn(
        'VMs',
        'QEMU is installed, but no /dev/kvm opens',
        weaker,
        'switch virtualization on in the firmware, or nested virtualization where this is itself a VM; or use hangar up --runtime qemu, several times slower',
      )
}

/** How the machines of a host are kept apart, as the host says itself. Pure. */
export function judgeHost(info: HostInfo): Finding {
  const { id, runtime, accel, isolation, runtime_note: note } = info
  const name = 'runtime'
  if (isolation === 'vm') return ok(name, `${id}: VMs by ${runtime} (${accel}); ${note}`)
  if (isolation === undefined) return ok(name, `${id}: ${note}`)
  return warn(
    name,
    `${id}: containers; ${note}`,
    weaker,
    'a processor on which a guest boots by KVM; or hangar up --runtime qemu, several times slower',
  )
}

/** A machine that sprays is its owner's trouble or a burglar's: somebody should look. */
const manyPackets = 1_000

/** What the walls around a host's machines dropped. Pure. */
export function judgeDropped({ id, dropped }: HostInfo): Finding[] {
  if (!dropped) return []
  const { machines, ...packets } = dropped
  const words = Object.entries(packets).map(([why, count]) => `${count} ${why.replace('_', ' ')}`)
  const found = `${id}: of machines' packets dropped: ${words.join(', ')}`
  const loud = machines.filter((machine) => machine.packets >= manyPackets)
  if (loud.length === 0) return [ok('walls', found)]
  const who = loud.slice(0, 3).map((machine) => `${machine.id} (${machine.packets})`)
  return [
    warn(
      'walls',
      `${found}; most by ${who.join(', ')}`,
      'nothing: they hold; but these machines try what they may not',
      'see what runs there: hangar m status ID, hangar logs; hangar m stop ID ends it',
    ),
  ]
}

export async function checkRuntime(home: Home, config: CloudConfig): Promise<Finding[]> {
  const kvm = mayUse('/dev/kvm', constants.R_OK | constants.W_OK)
  const vms = judgeVms({ qemu: hasQemu(), kvm })
  const hosts = await askHosts(home)
  if (hosts.length > 0) return [vms, ...hosts.map(judgeHost), ...hosts.flatMap(judgeDropped)]
  const plan = {
    auto: 'hosts take VMs where a guest boots by KVM, and containers elsewhere (a weaker wall)',
    qemu: 'hosts take VMs, by a program (TCG) where a guest does not boot by KVM',
    container: `hosts take containers: ${weaker}`,
  }[config.runtime]
  return [vms, ok('runtime', plan)]
}

/** Those that answer: the sockets and keys are root's, and a cloud need not run. */
async function askHosts(home: Home): Promise<HostInfo[]> {
  const state = readState(home)
  if (!state || process.getuid?.() !== 0) return []
  const answers = state.places.map(async (place) => {
    const headers = { authorization: `Bearer ${clusterKeyOf(home)}` }
    const request = { method: 'GET', path: '/v1/host', headers, timeoutMs: 2_000 } as const
    return callJson<HostInfo>(`unix:${hostSocket(home, place)}`, request)
  })
  const settled = await Promise.allSettled(answers)
  return settled.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
}
