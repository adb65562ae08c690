import { systemClock, type Clock } from '#core/clock.ts'
import { isFault, Fault } from '#core/fault.ts'
import type { Machine } from '#spec/machine.ts'
import type { MachineConfig } from '#spec/machine-config.ts'
import { part, type Api } from './api.ts'
import { listApps } from './apps.ts'
import { mapBounded } from './each.ts'

/** MCH-85: what deploy manages. */
export const isManaged = (machine: Machine): boolean =>
  machine.config.metadata?.['fly_platform_version'] === 'v2'

export const processGroupOf = (machine: Machine): string =>
  machine.config.metadata?.['fly_process_group'] ?? machine.config.metadata?.['process_group'] ?? ''

export const releaseVersionOf = (machine: Machine): string =>
  machine.config.metadata?.['fly_release_version'] ?? ''

/** DEP-2: groups of machines that a deploy uses for a moment. */
const shortLived = new Set([
  'fly_app_release_command',
  'fly_app_console',
  'fly_app_test_machine_command',
])
export const isShortLived = (machine: Machine): boolean => shortLived.has(processGroupOf(machine))

/** A name that `deploy --image` takes as it is: `127.0.0.1:5000/web:deployment-01J`, `library/redis:7`. */
export function imageOf(machine: Machine): string {
  const { registry, repository, tag } = machine.image_ref
  const name = registry === 'docker.io' ? repository : `${registry}/${repository}`
  return tag ? `${name}:${tag}` : name
}

/** `shared-cpu-1x`, or an empty text when the config names no guest. */
export function sizeOf(config: MachineConfig): string {
  const { guest } = config
  if (!guest) return config.size ?? ''
  const cpus = guest.cpus ?? 1
  return guest.cpu_kind === 'performance' ? `performance-${cpus}x` : `shared-cpu-${cpus}x`
}

/** `3 total, 2 passing, 1 critical`. */
export function checksOf(machine: Machine): string {
  if (machine.checks.length === 0) return ''
  const parts = [`${machine.checks.length} total`]
  for (const status of ['passing', 'warning', 'critical'] as const) {
    const count = machine.checks.filter((check) => check.status === status).length
    if (count > 0) parts.push(`${count} ${status}`)
  }
  return parts.join(', ')
}

const machinesPath = (app: string) => `/v1/apps/${part(app)}/machines`
export const machinePath = (app: string, id: string) => `${machinesPath(app)}/${part(id)}`

/** The machines of an app that still exist, by id. */
export async function listMachines(api: Api, app: string): Promise<Machine[]> {
  const machines = await api.get<Machine[]>(machinesPath(app))
  return machines
    .filter(({ state }) => state !== 'destroyed')
    .sort((a, b) => (a.id < b.id ? -1 : 1))
}

/** Takes a full id, a name, or the beginning of an id that names one machine only. */
export async function findMachine(api: Api, app: string, idOrName: string): Promise<Machine> {
  const exact = await api.find<Machine>(machinePath(app, idOrName))
  if (exact) return exact
  const machines = await listMachines(api, app)
  const named = machines.filter(({ id, name }) => name === idOrName || id.startsWith(idOrName))
  if (named.length === 1 && named[0]) return named[0]
  throw new Fault(
    'not_found',
    named.length > 1
      ? `${idOrName} begins the ids of ${named.length} machines of ${app}; give more of it`
      : `machine ${idOrName} not found in app ${app}; see: hangar machine list -a ${app}`,
  )
}

/** Why no command runs in an app, with what would help: a machine that stands by, by its id. */
export function noneStarted(app: string, machines: readonly Machine[]): Fault {
  const [first] = machines
  const remedy = first
    ? `its machine ${first.id} is ${first.state}; start it with: hangar m start ${first.id} -a ${app}`
    : 'it has no machine; make one with: hangar deploy'
  return new Fault('precondition_failed', `app ${app} has no started machine: ${remedy}`)
}

/** The app whose machine has this full id, out of all that the token shows; undefined where none has. */
export async function appOfMachine(api: Api, id: string): Promise<string | undefined> {
  if (!/^[0-9a-f]{14}$/.test(id)) return undefined
  const apps = await listApps(api)
  const having = await mapBounded(apps, 8, async ({ name }) =>
    (await api.find(machinePath(name, id))) ? name : undefined,
  )
  return having.find((name) => name !== undefined)
}

/** MCH-50: loops over the server's wait until the machine is there. A Fault of code wait_timeout after `timeoutMs`. */
export async function waitForMachine(
  api: Api,
  options: {
    app: string
    id: string
    states: readonly string[]
    timeoutMs: number
    clock?: Clock
  },
): Promise<void> {
  const { app, id, states, timeoutMs, clock = systemClock } = options
  const deadline = clock.now() + timeoutMs
  for (;;) {
    const seconds = Math.max(1, Math.min(60, Math.ceil((deadline - clock.now()) / 1000)))
    const query = [...states.map((state) => `state=${part(state)}`), `timeout=${seconds}`].join('&')
    try {
      await api.get(`${machinePath(app, id)}/wait?${query}`)
      return
    } catch (error) {
      if (states.includes('destroyed') && isFault(error, 'not_found')) return
      if (!isFault(error, 'wait_timeout')) throw error
      if (clock.now() >= deadline) {
        throw new Fault(
          'wait_timeout',
          `machine ${id} did not become ${states.join(' or ')} in ${Math.round(timeoutMs / 1000)} s; see: hangar machine status ${id} -a ${app} and hangar logs -a ${app}`,
          { cause: error },
        )
      }
    }
  }
}
