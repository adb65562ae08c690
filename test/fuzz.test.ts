import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { parseArgs } from 'node:util'
import { after, before, test } from 'node:test'
import type { Hono } from 'hono'
import type { Env } from '#api/request.ts'
import { createApi } from '#api/server.ts'
import { createApp } from '#control/apps/index.ts'
import { ensureOrg } from '#control/orgs/index.ts'
import { operatorToken, startTestControl, type TestControl } from '#control/test-support.ts'
import { randomOf } from './fuzz/random.ts'
import {
  flyTomlTarget,
  graphTarget,
  machineConfigTarget,
  referenceTarget,
  type GraphAnswer,
  type Target,
} from './fuzz/targets.ts'

/**
 * Inputs made from a kept corpus by small changes: nothing crashes, nothing hangs, nothing that is our fault is answered,
 * and enough of them is taken to reach what lies behind the first check. `make test` runs a share, with one seed that
 * is always the same and one that is new each time:
 *
 *   node test/fuzz.test.ts --runs 1000000 --seed 1
 */
const { values } = parseArgs({ options: { runs: { type: 'string' }, seed: { type: 'string' } } })
const runs = Number(values.runs ?? 20_000)
const seeds = values.seed === undefined ? [1, randomInt(2 ** 31)] : [Number(values.seed)]
/** One input alone takes well under a millisecond; this is a hang on a machine that is busy. */
const inputMsMax = 5_000
const together = 16

let control: TestControl
let api: Hono<Env>
let token = ''
const rejections: unknown[] = []

before(async () => {
  process.on('unhandledRejection', (reason) => rejections.push(reason))
  control = await startTestControl()
  token = await operatorToken(control.ctx)
  const org = await ensureOrg(control.ctx, 'personal', 'Personal')
  await createApp(control.ctx, { name: 'fuzz', org })
  api = createApi(control.ctx)
})
after(() => control.close())

async function ask(body: string): Promise<GraphAnswer> {
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
  const answer = await api.request('/graphql', { method: 'POST', headers, body })
  return { status: answer.status, body: (await answer.json()) as GraphAnswer['body'] }
}

/** What mutations made would make every later list longer. */
async function forgetMade(): Promise<void> {
  const { db } = control.ctx
  await db.deleteFrom('ip_assignments').execute()
  await db.deleteFrom('tokens').where('name', '<>', 'hangar').execute()
  await db.deleteFrom('networks').where('name', '<>', 'default').execute()
  await db.deleteFrom('orgs').where('slug', '<>', 'personal').execute()
}

async function fuzz(target: Target, seed: number, count: number): Promise<string> {
  const random = randomOf(seed)
  let taken = 0
  let worstMs = 0
  const one = async (input: string) => {
    const begun = performance.now()
    try {
      if (await target.run(input)) taken++
    } catch (cause) {
      const shown = JSON.stringify(input.slice(0, 3_000))
      throw new Error(`${target.name}, seed ${seed}: ${shown}`, { cause })
    }
    const ms = performance.now() - begun
    worstMs = Math.max(worstMs, ms)
    assert.ok(
      ms < inputMsMax,
      `${target.name}, seed ${seed}: ${ms} ms for ${input.slice(0, 3_000)}`,
    )
  }
  for (let done = 0; done < count; done += together) {
    const batch = Array.from({ length: Math.min(together, count - done) }, () =>
      target.make(random),
    )
    await Promise.all(batch.map(one))
    if (done % 16_000 === 0) await forgetMade()
  }
  assert.ok(taken * 10 >= count, `only ${taken} of ${count} were taken: nothing deep is reached`)
  return `${target.name}, seed ${seed}: ${count} inputs, ${taken} taken, worst ${worstMs.toFixed(1)} ms`
}

for (const target of [
  graphTarget(ask),
  machineConfigTarget(),
  referenceTarget(),
  flyTomlTarget(),
]) {
  test(`${target.name}: no crash, no hang, nobody's fault but the input's`, async (t) => {
    for (const seed of seeds) {
      t.diagnostic(await fuzz(target, seed, Math.round((runs / seeds.length) * target.share)))
    }
    assert.deepEqual(rejections, [])
  })
}
