import assert from 'node:assert/strict'
import type { Machine, MachineInput } from '#spec/machine.ts'

/** One call of the public API as a client sends it: `POST /v1/apps`. Resolves with whatever status it was answered. */
export type Call = (
  line: string,
  body?: unknown,
  nonce?: string,
) => Promise<{ status: number; body: Record<string, unknown> }>

export type Strategy = 'rolling' | 'immediate' | 'canary' | 'bluegreen'

/** Thrown where the client is cut off: it does nothing more, not even clear up. */
export class CutOff extends Error {}

/**
 * A client that drives a deploy machine by machine, call for call as the public client does it (DEP-1, DEP-5, DEP-10,
 * DEP-20), without its pauses; a rolling deploy has a release command. `callsLeft` is how many calls it gets before it is killed.
 */
export class ScriptedClient {
  calls = 0
  /** After how many calls something had changed: where a cut can make a difference. */
  readonly changes: number[] = []
  private readonly call: Call
  private readonly app: string
  private readonly callsLeft: number

  constructor(options: { call: Call; app: string; callsLeft?: number }) {
    this.call = options.call
    this.app = options.app
    this.callsLeft = options.callsLeft ?? Infinity
  }

  /** Throws what stopped it: a refusal, as an `Error` with its text, or the cut. */
  async deploy(strategy: Strategy, image: string): Promise<void> {
    const all = (await this.on('GET ')) as unknown as Machine[]
    const helpers = all.filter((machine) => groupOf(machine) === 'fly_app_release_command')
    const machines = all.filter((machine) => !groupOf(machine).startsWith('fly_app_'))
    const { release } = (await this.ask('POST /api/v1/releases', {
      app_name: this.app,
      image,
      definition: { app: this.app },
      strategy: strategy.toUpperCase(),
    })) as { release: { id: string; version: number } }
    const move = (status: string) => this.ask(`PATCH /api/v1/releases/${release.id}`, { status })
    await move('running')
    try {
      for (const { id } of helpers) await this.on(`DELETE /${id}?kill=true`)
      if (strategy === 'rolling') await this.releaseCommand(release, image)
      if (strategy === 'canary') await this.canary(release, image)
      await this.update(strategy, { release, image, machines })
    } catch (error) {
      if (!(error instanceof CutOff)) await move('failed')
      throw error
    }
    await move('complete')
  }

  private async update(
    strategy: Strategy,
    run: { release: Release; image: string; machines: Machine[] },
  ): Promise<void> {
    const nonces = new Map<string, string>()
    try {
      for (const { id } of run.machines) {
        const lease = await this.on(`POST /${id}/lease?ttl=13`)
        nonces.set(id, (lease['data'] as { nonce: string }).nonce)
      }
      if (strategy === 'bluegreen') return await this.bluegreen(run, nonces)
      for (const { id, config } of run.machines) {
        const input = configFor(run.release, run.image, config.metadata ?? {})
        await this.on(`POST /${id}`, { config: input }, nonces.get(id))
        if (strategy !== 'immediate') await this.wait(id, 'started')
      }
    } finally {
      for (const [id, nonce] of nonces) {
        if (this.calls < this.callsLeft) await this.raw(`DELETE /${id}/lease`, undefined, nonce)
      }
    }
  }

  private async releaseCommand(release: Release, image: string): Promise<void> {
    const helper = await this.create({
      config: {
        ...configFor(release, image, {}, 'fly_app_release_command'),
        services: [],
        auto_destroy: true,
        restart: { policy: 'no' },
      },
      skip_launch: true,
    })
    await this.wait(helper.id, 'stopped')
    await this.on(`POST /${helper.id}/start`)
    await this.on(`POST /${helper.id}/stop`)
    await this.wait(helper.id, 'destroyed')
  }

  private async canary(release: Release, image: string): Promise<void> {
    const config = configFor(release, image, { fly_canary: 'true' })
    const canary = await this.create({ config, lease_ttl: 300 })
    await this.wait(canary.id, 'started')
    await this.on(`DELETE /${canary.id}/lease`, undefined, canary.nonce)
    await this.on(`DELETE /${canary.id}?kill=true`)
  }

  private async bluegreen(
    { release, image, machines }: { release: Release; image: string; machines: Machine[] },
    nonces: Map<string, string>,
  ): Promise<void> {
    const images = new Set(machines.map((machine) => machine.config.image))
    if (images.size > 1) throw new Error('found multiple image versions')
    const greens: Machine[] = []
    for (const [index] of machines.entries()) {
      const tags = { fly_bluegreen_deployment_tag: '1700000000', launch: String(index) }
      const config = configFor(release, image, tags)
      greens.push(await this.create({ config, skip_service_registration: true }))
    }
    for (const { id } of greens) await this.wait(id, 'started')
    for (const { id } of greens) await this.on(`POST /${id}/uncordon`)
    for (const { id } of machines) {
      const tag = { value: 'safe_to_destroy' }
      await this.on(`POST /${id}/metadata/fly_bluegreen_deployment_tag`, tag)
    }
    for (const { id } of machines) await this.on(`POST /${id}/cordon`, {}, nonces.get(id))
    for (const { id } of machines) await this.on(`POST /${id}/stop`, {}, nonces.get(id))
    for (const { id } of machines) await this.wait(id, 'stopped')
    for (const { id } of machines) {
      await this.on(`DELETE /${id}?kill=true`, undefined, nonces.get(id))
      nonces.delete(id)
    }
  }

  private async create(input: MachineInput): Promise<Machine> {
    return (await this.on('POST ', { region: 'ord', ...input })) as unknown as Machine
  }

  private async wait(id: string, state: string): Promise<void> {
    await this.on(`GET /${id}/wait?state=${state}&timeout=60`)
  }

  private on(line: string, body?: unknown, nonce?: string): Promise<Record<string, unknown>> {
    return this.ask(this.path(line), body, nonce)
  }

  private raw(line: string, body?: unknown, nonce?: string) {
    this.calls++
    return this.call(this.path(line), body, nonce)
  }

  private path(line: string): string {
    const [method = '', rest = ''] = line.split(' ')
    return `${method} /v1/apps/${this.app}/machines${rest}`
  }

  private async ask(line: string, body?: unknown, nonce?: string) {
    if (this.calls >= this.callsLeft) throw new CutOff(`killed before ${line}`)
    this.calls++
    if (!line.startsWith('GET ')) this.changes.push(this.calls)
    const answer = await this.call(line, body, nonce)
    if (answer.status >= 300) throw new Error(String(answer.body['error']))
    return answer.body
  }
}

const groupOf = ({ config }: Machine): string => config.metadata?.['fly_process_group'] ?? ''

interface Release {
  id: string
  version: number
}

/** What the client makes of fly.toml for one machine. */
export function configFor(
  release: Release,
  image: string,
  metadata: Record<string, string> = {},
  group = 'app',
): MachineInput['config'] {
  assert.ok(release.id)
  return {
    image,
    services: [{ protocol: 'tcp', internal_port: 80, ports: [{ port: 80, handlers: ['http'] }] }],
    metadata: {
      ...metadata,
      fly_platform_version: 'v2',
      fly_process_group: group,
      fly_release_id: release.id,
      fly_release_version: String(release.version),
    },
  }
}
