import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { isFault } from '#core/fault.ts'
import { machineConfigFor } from '#spec/flatten.ts'
import { parseDefinition, parseFlyToml, writeFlyToml } from '#spec/fly-toml.ts'
import type { MachineConfig } from '#spec/machine-config.ts'
import { processGroups } from '#spec/process-groups.ts'
import { machineRowSchema } from '#spec/roster.ts'
import { checkMachineInput } from '#control/machines/validate.ts'
import { routesOf } from '#edge/proxy/routes.ts'
import { exampleRow } from '#edge/test-support.ts'
import { listenPort, planChecks } from '#host/checks/check-plan.ts'
import { checkConfig, haltFor } from '#host/config-rules.ts'
import { formatReference, parseReference } from '#host/image/reference.ts'
import { mutateJson, mutateText, mutateTokens } from './mutate.ts'
import type { Random } from './random.ts'

/** Something that takes text from outside. */
export interface Target {
  name: string
  /** Of all inputs. */
  share: number
  make(random: Random): string
  /** Whether the input was taken. What breaks a promise is thrown. */
  run(input: string): boolean | Promise<boolean>
}

const corpus = (name: string) => join(import.meta.dirname, '../corpus', name)
export const corpusText = (name: string): string => readFileSync(corpus(name), 'utf8')
const corpusJson = (name: string) => JSON.parse(corpusText(name)) as Record<string, unknown>[]

/** What `act` gives, or undefined when it refuses with a Fault that a user can act on. */
function unlessRefused<T>(act: () => T): T | undefined {
  try {
    return act()
  } catch (error) {
    if (isFault(error) && error.code !== 'internal') return undefined
    throw error
  }
}

export function referenceTarget(): Target {
  const known = corpusText('references.txt').trim().split('\n')
  return {
    name: 'image references',
    share: 0.35,
    make(random) {
      const text = mutateText(random, random.pick(known), random.pick(known))
      return random.chance(0.4) ? mutateTokens(random, text, random.pick(known)) : text
    },
    run(input) {
      const reference = unlessRefused(() => parseReference(input))
      if (!reference) return false
      const written = formatReference(reference)
      assert.equal(formatReference(parseReference(written)), written)
      return true
    },
  }
}

/** All that reads a config after control has taken it: none may fail on one, wherever in the cloud it is. */
function readEverywhere(config: MachineConfig): void {
  if (unlessRefused(() => (checkConfig(config), true)) === undefined) return
  for (const check of planChecks(config)) {
    assert.ok(check.intervalMs > 0 && check.timeoutMs > 0 && check.graceMs >= 0)
    assert.ok(check.port >= 1 && check.port <= 65_535)
  }
  listenPort(config)
  assert.ok(haltFor(config).timeoutMs >= 0)
  const row = exampleRow({
    services: config.services ?? [],
    primary_region: config.env?.['PRIMARY_REGION'] ?? null,
    process_group: config.metadata?.['fly_process_group'] ?? null,
  })
  const read = machineRowSchema.parse(JSON.parse(JSON.stringify(row)))
  routesOf([read], { domain: 'hangar.localhost' })
}

export function machineConfigTarget(): Target {
  const known = corpusJson('machine-inputs.json')
  const app = { name: 'fuzz', secretsVersion: 3 }
  return {
    name: 'machine configs',
    share: 0.35,
    make(random) {
      const text = JSON.stringify(mutateJson(random, random.pick(known), random.pick(known)))
      if (random.chance(0.9)) return text
      return mutateText(random, text, JSON.stringify(random.pick(known)))
    },
    run(input) {
      let raw: unknown
      try {
        raw = JSON.parse(input)
      } catch {
        return false
      }
      const before = JSON.stringify(raw)
      const checked = unlessRefused(() => checkMachineInput(app, raw))
      assert.equal(JSON.stringify(raw), before, 'what came in is never changed')
      if (!checked) return false
      readEverywhere(checked.input.config)
      return true
    },
  }
}

export function flyTomlTarget(): Target {
  const folder = corpus('fly-toml')
  const known = readdirSync(folder).map((file) => readFileSync(join(folder, file), 'utf8'))
  const at = new Date(0)
  return {
    name: 'fly.toml',
    share: 0.1,
    make(random) {
      const text = random.pick(known)
      const donor = random.pick(known)
      const lines = text.split('\n')
      const line = random.int(lines.length)
      const kind = random.int(4)
      if (kind === 0) lines.splice(line, random.int(3))
      else if (kind === 1) lines.splice(line, 0, random.pick(donor.split('\n')))
      else if (kind === 2) lines[line] = mutateTokens(random, lines[line] ?? '', donor)
      else return mutateText(random, text, donor).toWellFormed()
      // A file is decoded as it is read: half a character never comes out of one.
      return lines.join('\n').toWellFormed()
    },
    run(input) {
      const result = parseFlyToml(input, { file: 'fly.toml' })
      if (!result.ok) {
        assert.ok(result.errors.length > 0 && result.errors.every(({ message }) => message !== ''))
        return false
      }
      const stored = parseDefinition(result.definition)
      assert.ok(stored.ok, 'the server takes what the client took')
      assert.ok(parseFlyToml(writeFlyToml(result.definition, { at }), { file: 'fly.toml' }).ok)
      const words = { image: 'i', releaseId: 'r', releaseVersion: 1, hangarVersion: '0' }
      for (const group of processGroups(result.config)) {
        unlessRefused(() => machineConfigFor(result.config, group, words))
      }
      return true
    },
  }
}

export interface GraphAnswer {
  status: number
  body: { data?: unknown; errors?: { message?: unknown; extensions?: { code?: unknown } }[] }
}

/** `ask` sends a body to the door as the operator would. */
export function graphTarget(ask: (body: string) => Promise<GraphAnswer>): Target {
  const known = corpusJson('graphql.json') as { query: string; variables: unknown }[]
  return {
    name: 'GraphQL bodies',
    share: 0.2,
    make(random) {
      const body = random.pick(known)
      const donor = random.pick(known)
      const kind = random.int(10)
      if (kind < 5) {
        const variables = mutateJson(random, body.variables, donor.variables)
        return JSON.stringify({ ...body, variables })
      }
      if (kind < 9) {
        return JSON.stringify({ ...body, query: mutateTokens(random, body.query, donor.query) })
      }
      return mutateText(random, JSON.stringify(body), JSON.stringify(donor))
    },
    async run(input) {
      const { status, body } = await ask(input)
      assert.equal(status, 200)
      for (const { message, extensions } of body.errors ?? []) {
        assert.ok(typeof message === 'string' && message !== '')
        assert.ok(typeof extensions?.code === 'string')
        assert.notEqual(extensions.code, 'INTERNAL', message)
      }
      assert.ok('data' in body || (body.errors?.length ?? 0) > 0)
      return 'data' in body
    },
  }
}
