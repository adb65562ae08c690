import type { Clock } from '#core/clock.ts'
import { Fault } from '#core/fault.ts'
import type { CheckStatus, Machine, MachineEvent, MachineInput } from '#spec/machine.ts'
import type { Volume } from '#spec/volume.ts'
import type { DeployStep } from './job.ts'
import type { DeployWorld, LoggedLine } from './world.ts'

/** Thrown out of every call once the simulated process is dead. */
export class Killed extends Error {}

interface SimMachine {
  machine: Machine
  lease: { nonce: string; until: number } | undefined
  /** What this version does: becomes well, crashes, stays unwell. */
  readyAt: number
}

/** What images do when they run, by digest. */
export type Behaviour = 'well' | 'crashes' | 'unwell' | 'exits'

/**
 * A world in memory on a clock of its own, for tests of the engine. `plan.failAt` makes the n-th call fail, `plan.killAt`
 * kills the process before (odd halves: after) it acts.
 */
export class SimWorld implements DeployWorld {
  readonly machines = new Map<string, SimMachine>()
  readonly volumes: Volume[] = []
  readonly said: string[] = []
  readonly behaviour = new Map<string, Behaviour>()
  /** How often each release command machine was started. */
  readonly commandStarts: string[] = []
  releaseExitCode = 0
  step: DeployStep | undefined
  calls = 0
  plan: { killAt?: number; failAt?: number; afterwards?: boolean } = {}
  /** The most machines that served and were out at once, by process group. */
  readonly outMax = new Map<string, number>()
  readonly clock: Clock = { now: () => this.time, sleep: (ms, signal) => this.sleep(ms, signal) }
  private time = 1_000_000
  private dead = false
  private counter = 0
  private readonly out = new Map<string, string>()
  private readonly sleepers: { at: number; wake: () => void }[] = []
  private pumping = false

  /** A new process starts where the last one died. */
  revive(): void {
    this.dead = false
    this.plan = {}
    this.calls = 0
  }

  addMachine(input: MachineInput, digest: string, state: Machine['state'] = 'started'): Machine {
    const machine = this.make(input, digest, state)
    this.machines.set(machine.id, { machine, lease: undefined, readyAt: 0 })
    return machine
  }

  live(): Machine[] {
    return [...this.machines.values()]
      .map(({ machine }) => this.look(machine.id))
      .filter((machine) => machine.state !== 'destroyed')
  }

  listMachines = () => this.call(() => structuredClone(this.live()))
  getMachine = (id: string) => this.call(() => structuredClone(this.look(id)))

  createMachine = (input: MachineInput) =>
    this.call(() => {
      const launched = !input.skip_launch
      const machine = this.make(
        input,
        digestOf(input.config.image),
        launched ? 'started' : 'stopped',
      )
      const sim: SimMachine = { machine, lease: undefined, readyAt: this.time + 300 }
      if (launched) this.event(machine, 'start')
      this.machines.set(machine.id, sim)
      if (!input.lease_ttl) return structuredClone(machine)
      sim.lease = { nonce: this.next('n'), until: this.time + input.lease_ttl * 1000 }
      return { ...structuredClone(machine), nonce: sim.lease.nonce }
    })

  updateMachine = (id: string, input: MachineInput, nonce: string) =>
    this.call(() => {
      const sim = this.held(id, nonce)
      const { machine } = sim
      const served = machine.state === 'started'
      if (served) this.takeOut(machine)
      machine.config = structuredClone(input.config)
      machine.image_ref = { ...machine.image_ref, digest: digestOf(input.config.image) }
      machine.instance_id = this.next('i')
      machine.state = input.skip_launch ? 'stopped' : 'started'
      if (!input.skip_launch) this.event(machine, 'start')
      sim.readyAt = this.time + 300
      return structuredClone(machine)
    })

  startMachine = (id: string) =>
    this.call(() => {
      const sim = this.sim(id)
      if (sim.machine.config.env?.['RELEASE_COMMAND']) this.commandStarts.push(id)
      sim.machine.state = 'started'
      sim.readyAt = this.time + 500
      this.event(sim.machine, 'start')
    })

  destroyMachine = (id: string, nonce?: string) =>
    this.call(() => {
      const sim = nonce === undefined ? this.machines.get(id) : this.held(id, nonce)
      if (sim) sim.machine.state = 'destroyed'
    })

  waitMachine: DeployWorld['waitMachine'] = async (id, { states, timeoutMs }) => {
    const deadline = this.time + timeoutMs
    for (;;) {
      const machine = await this.call(() => this.look(id))
      if (states.includes(machine.state)) return
      if (this.time >= deadline) throw new Fault('wait_timeout', `machine ${id} is late`)
      await this.sleep(100)
    }
  }

  acquireLease: DeployWorld['acquireLease'] = (id, { ttlSeconds, nonce }) =>
    this.call(() => {
      const sim = this.sim(id)
      const held = sim.lease && sim.lease.until > this.time ? sim.lease : undefined
      if (held && held.nonce !== nonce) {
        throw new Fault('lease_held', `lease currently held by another on machine ${id}`)
      }
      sim.lease = { nonce: held?.nonce ?? this.next('n'), until: this.time + ttlSeconds * 1000 }
      return sim.lease.nonce
    })

  releaseLease = (id: string, nonce: string) =>
    this.call(() => {
      this.held(id, nonce).lease = undefined
    })

  setMetadata: DeployWorld['setMetadata'] = (id, { key, value }, nonce) =>
    this.call(() => {
      const { machine } = this.held(id, nonce)
      machine.config.metadata = { ...machine.config.metadata, [key]: value }
    })

  routed = (id: string) =>
    this.call(() => {
      this.putIn(id)
      return true
    })

  processes = (id: string) =>
    this.call(() => {
      const port = this.look(id).config.services?.[0]?.internal_port
      const listen_sockets = [{ proto: 'tcp', address: `0.0.0.0:${port}` }]
      const zero = { pid: 1, stime: 0, rtime: 0, cpu: 0, rss: 0 }
      return [{ ...zero, command: '', directory: '', listen_sockets }]
    })

  async *logs(id: string): AsyncGenerator<LoggedLine> {
    yield await this.call(() => ({ ns: `${this.time}000000`, message: `a line of ${id}` }))
  }

  listVolumes = () =>
    this.call(() => structuredClone(this.volumes.map((one) => this.attached(one))))

  createVolume: DeployWorld['createVolume'] = ({ name, region, size_gb }) =>
    this.call(() => {
      const volume: Volume = {
        id: this.next('vol_'),
        name,
        state: 'created',
        size_gb,
        region,
        zone: 'z',
        encrypted: true,
        attached_machine_id: null,
        attached_alloc_id: null,
        created_at: '',
        fstype: 'ext4',
        snapshot_retention: 5,
        auto_backup_enabled: true,
        host_status: 'ok',
      }
      this.volumes.push(volume)
      return volume
    })

  say: DeployWorld['say'] = (level, message) =>
    this.call(() => void this.said.push(`${level}: ${message}`))

  saveStep = (step: DeployStep) =>
    this.call(() => {
      this.step = structuredClone(step)
    })

  /** One effect of the process on the world: where it may fail or die. */
  private async call<T>(act: () => T): Promise<T> {
    // A call takes time, and other work goes on meanwhile.
    await this.sleep(1)
    if (this.dead) throw new Killed('dead')
    const { killAt, failAt, afterwards } = this.plan
    const count = ++this.calls
    if (failAt === count && !afterwards) throw new Fault('internal', 'a failure of the test')
    if (killAt === count && !afterwards) this.dead = true
    if (this.dead) throw new Killed('dead')
    const result = act()
    if (killAt === count) this.dead = true
    if (this.dead) throw new Killed('dead')
    if (failAt === count) throw new Fault('internal', 'a failure of the test, after it was done')
    return result
  }

  /** Time passes only when nothing else is left to do. */
  private sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason as Error)
      const entry = { at: this.time + ms, wake: resolve }
      this.sleepers.push(entry)
      signal?.addEventListener('abort', () => {
        const index = this.sleepers.indexOf(entry)
        if (index >= 0) this.sleepers.splice(index, 1)
        reject(signal.reason as Error)
      })
      if (!this.pumping) {
        this.pumping = true
        setImmediate(() => this.pump())
      }
    })
  }

  private pump(): void {
    this.sleepers.sort((a, b) => a.at - b.at)
    const first = this.sleepers.shift()
    if (!first) {
      this.pumping = false
      return
    }
    this.time = Math.max(this.time, first.at)
    first.wake()
    setImmediate(() => this.pump())
  }

  private next(prefix: string): string {
    return `${prefix}${String(++this.counter).padStart(5, '0')}`
  }

  private make(input: MachineInput, digest: string, state: Machine['state']): Machine {
    const id = this.next('m')
    return {
      id,
      name: id,
      state,
      region: input.region ?? 'ord',
      image_ref: { registry: 'r', repository: 'i', tag: '', digest, labels: null },
      instance_id: this.next('i'),
      version: '',
      private_ip: '',
      created_at: '',
      updated_at: '',
      config: structuredClone(input.config),
      events: [],
      checks: [],
      cordoned: false,
      host_status: 'ok',
    }
  }

  private sim(id: string): SimMachine {
    const sim = this.machines.get(id)
    if (!sim) throw new Fault('not_found', `machine not found: ${id}`)
    return sim
  }

  private held(id: string, nonce: string): SimMachine {
    const sim = this.sim(id)
    if (sim.lease?.nonce !== nonce || sim.lease.until <= this.time) {
      throw new Fault('lease_held', `machine ${id} was touched without its lease`)
    }
    return sim
  }

  private event(machine: Machine, type: MachineEvent['type'], request?: MachineEvent['request']) {
    machine.events.unshift({
      id: this.next('e'),
      type,
      status: machine.state,
      source: 'user',
      timestamp: this.time,
      ...(request ? { request } : {}),
    })
  }

  private exit(machine: Machine, exit_code: number, restarting: boolean) {
    const exit_event = {
      exit_code,
      guest_exit_code: exit_code,
      guest_signal: -1,
      signal: -1,
      oom_killed: false,
      requested_stop: false,
      restarting,
      exited_at: '',
    }
    this.event(machine, 'exit', { exit_event })
  }

  /** The machine as it is at this time: what its image does has happened. */
  private look(id: string): Machine {
    const { machine, readyAt } = this.sim(id)
    if (machine.state !== 'started') return machine
    const ready = this.time >= readyAt
    if (machine.config.env?.['RELEASE_COMMAND']) {
      if (ready) {
        machine.state = 'destroyed'
        this.exit(machine, this.releaseExitCode, false)
      }
      return machine
    }
    const behaviour = this.behaviour.get(machine.image_ref.digest) ?? 'well'
    if (behaviour === 'crashes' && ready) {
      const crashes = machine.events.filter((event) => event.type === 'exit').length
      const due = Math.floor((this.time - readyAt) / 1000)
      for (let n = crashes; n < Math.min(due, 5); n++) this.exit(machine, 3, true)
    }
    if (behaviour === 'exits' && ready) {
      machine.state = 'stopped'
      this.exit(machine, 0, false)
    }
    const passing = ready && behaviour === 'well'
    machine.checks = checksOf(machine, passing ? 'passing' : 'critical')
    if (passing) this.putIn(id)
    return machine
  }

  private takeOut(machine: Machine): void {
    const group = machine.config.metadata?.['fly_process_group'] ?? ''
    this.out.set(machine.id, group)
    const count = [...this.out.values()].filter((one) => one === group).length
    this.outMax.set(group, Math.max(this.outMax.get(group) ?? 0, count))
  }

  private putIn(id: string): void {
    this.out.delete(id)
  }

  private attached(volume: Volume): Volume {
    const user = this.live().find((one) => one.config.mounts?.[0]?.volume === volume.id)
    return { ...volume, attached_machine_id: user?.id ?? null }
  }
}

const digestOf = (image: string): string => image.split('@')[1] ?? ''

function checksOf(machine: Machine, status: CheckStatus['status']): CheckStatus[] {
  const count = machine.config.services?.flatMap((service) => service.checks ?? []).length ?? 0
  return Array.from({ length: count }, (_, n) => ({
    name: `servicecheck-0${n}-http-8080`,
    status,
    output: status === 'passing' ? 'ok' : 'connection refused',
    updated_at: '',
  }))
}
