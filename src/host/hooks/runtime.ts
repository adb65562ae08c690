import { Fault } from '#core/fault.ts'
import { resolveGuest } from '#spec/guest-size.ts'
import { rootGbOf, rootPersistOf } from '#spec/rootfs.ts'
import { ip6Of } from '../agent.ts'
import { commandOf } from '../command.ts'
import { environmentOf } from '../environment.ts'
import { hostsFile } from '../guest-files.ts'
import { keepsRoot } from '../kept-root.ts'
import { capabilitiesOf, kindOf } from '../runtime-choice.ts'
import type { Hook, Launch } from './hook.ts'

/** The process itself, in a root that is built anew unless it is to be kept (MCH-65). */
export const runtimeHook: Hook = {
  name: 'runtime',
  async prestart(launch) {
    saySize(launch)
    await launch.agent.driver.start(startSpec(launch), launch.netReady)
  },
  async poststop(agent, record) {
    await agent.driver.destroy(record.id, { keepRoot: keepsRoot(record) })
  },
}

/** What was asked for and is not held to is said where its owner looks. */
function saySize({ agent, record }: Launch): void {
  if (!record.config.rootfs?.size_gb || capabilitiesOf(agent, record).rootSize) return
  const message = `rootfs.size_gb is no limit here: the root of a ${kindOf(record)} is a folder of its host's disk`
  agent.spool.say(record.id, { provider: 'runner', level: 'warn', message })
}

function startSpec(launch: Launch) {
  const { agent, record, image, net } = launch
  if (!image || !net) throw new Fault('internal', 'a start without its image or network')
  const ip6 = ip6Of(agent, record)
  const guest = resolveGuest(record.config)
  const { init } = record.config
  return {
    id: record.id,
    instanceId: record.instanceId,
    runtime: kindOf(record),
    keepRoot: launch.keepRoot,
    lastingRoot: rootPersistOf(record.config) !== 'never',
    rootSizeMb: rootGbOf(record.config) * 1024,
    squashfsPath: image.squashfsPath,
    argv: commandOf(record.config, image.config),
    env: environmentOf(record, { imageEnv: image.config.env, secrets: launch.secrets, ip6 }),
    user: init?.user || image.config.user,
    workdir: image.config.workdir,
    hostname: record.id,
    hosts: hostsFile({ hostname: record.id, ip4: net.ip4, ip6 }),
    resolvConf: agent.resolvConf(),
    files: launch.files,
    mounts: launch.mounts,
    netnsPath: net.netnsPath,
    limits: {
      cpus: guest.cpus,
      cpuKind: guest.cpu_kind,
      memoryMb: guest.memory_mb,
      ...(init?.swap_size_mb ? { swapMb: init.swap_size_mb } : {}),
    },
    logFile: agent.spool.prepareRun(record.id, record.run),
    tty: init?.tty === true,
  }
}
