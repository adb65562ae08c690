import assert from 'node:assert/strict'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { after, before, test } from 'node:test'
import dns, { type DecodedPacket } from 'dns-packet'
import fc from 'fast-check'
import { allocateAddress } from '#control/addresses/index.ts'
import { createApp, type AppRecord } from '#control/apps/index.ts'
import { ensureOrg } from '#control/orgs/index.ts'
import { startTestControl, type TestControl } from '#control/test-support.ts'
import { answerQuery, openLookup, serveNames, type NameServer } from './names.ts'

let control: TestControl
let names: NameServer
let app: AppRecord
/** Added to the time that the name server sees. */
let lateMs = 0

before(async () => {
  control = await startTestControl()
  const org = await ensureOrg(control.ctx, 'personal', 'Personal')
  app = await createApp(control.ctx, { org, name: 'named' })
  const { clock } = control.ctx
  control.ctx.clock = { ...clock, now: () => clock.now() + lateMs }
  names = await serveNames(control.ctx, { address: '127.0.0.1', port: 0 })
})
after(async () => {
  await names.close()
  await control.close()
})

async function ask(name: string, type: 'A' | 'AAAA' | 'TXT'): Promise<DecodedPacket> {
  const socket = createSocket('udp4')
  try {
    const flags = dns.RECURSION_DESIRED
    socket.send(
      dns.encode({ type: 'query', id: 77, flags, questions: [{ name, type }] }),
      names.port,
      '127.0.0.1',
    )
    const [answer] = (await once(socket, 'message', { signal: AbortSignal.timeout(2_000) })) as [
      Buffer,
    ]
    return dns.decode(answer)
  } finally {
    socket.close()
  }
}

const rcode = (packet: DecodedPacket) => (packet.flags ?? 0) & 15
const counts = async (name: string) => {
  lateMs += 1_000
  const found = await Promise.all([ask(name, 'A'), ask(name, 'AAAA')])
  assert.deepEqual(found.map(rcode), [0, 0])
  return found.map((packet) => packet.answers?.length)
}

test('§10.5: a name has the addresses that a client counts, and no private ones', async () => {
  assert.deepEqual(await counts('named.fly.dev'), [0, 0])
  await allocateAddress(control.ctx, app, { type: 'shared_v4' })
  await allocateAddress(control.ctx, app, { type: 'v6' })
  await allocateAddress(control.ctx, app, { type: 'private_v6' })
  assert.deepEqual(await counts('named.fly.dev'), [1, 0])
  assert.deepEqual(await counts('NAMED.hangar.localhost'), [1, 0])
  // What a real address of every region, and one of a single region, would be.
  const row = (address: string, region: string) =>
    control.ctx.db
      .insertInto('ip_assignments')
      .values({ id: address, app_id: app.id, type: 'v6', address, region, service_name: '' })
      .execute()
  await row('2001:db8::1', 'global')
  await row('2001:db8::2', 'ord')
  lateMs += 1_000
  const packet = await ask('named.fly.dev', 'AAAA')
  assert.equal(packet.id, 77)
  assert.deepEqual(
    packet.answers?.map((one) => 'data' in one && one.data),
    ['2001:db8::1'],
  )
  assert.equal((await ask('named.fly.dev', 'TXT')).answers?.length, 0)
})

test('every other name does not exist, at once', async () => {
  for (const name of [
    'clientsdk.launchdarkly.com',
    'nobody.fly.dev',
    'a.named.fly.dev',
    'fly.dev',
    'namedfly.dev',
    '',
  ]) {
    assert.equal(rcode(await ask(name, 'A')), 3, name)
  }
})

test('what is no query is not answered, and nothing that is sent does harm', async () => {
  const response = dns.encode({
    type: 'response',
    questions: [{ name: 'named.fly.dev', type: 'A' }],
  })
  assert.equal(await answerQuery(control.ctx, response, openLookup(control.ctx)), undefined)
  const good = dns.encode({
    type: 'query',
    id: 1,
    questions: [{ name: 'named.fly.dev', type: 'A' }],
  })
  const find = openLookup(control.ctx)
  let answered = 0
  const mutated = fc
    .array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 6 })
    .map((changes) => {
      const bytes = Buffer.from(good)
      for (const [at, value] of changes) bytes[at] = value
      return bytes
    })
  const any = fc.oneof(
    fc.uint8Array({ maxLength: 600 }).map((bytes) => Buffer.from(bytes)),
    mutated,
  )
  await fc.assert(
    fc.asyncProperty(any, async (bytes) => {
      const answer = await answerQuery(control.ctx, bytes, find)
      if (!answer) return
      answered++
      assert.ok(answer.length <= 512)
      assert.equal(dns.decode(answer).type, 'response')
    }),
    { numRuns: 1_000 },
  )
  assert.ok(answered > 100, `${answered} were answered`)
  assert.equal(rcode(await ask('named.fly.dev', 'A')), 0)
})

test('a flood of queries takes few connections of the database, and the same name is looked up once', async () => {
  const { ctx } = control
  let now = 0
  let most = 0
  const asked: string[] = []
  const db = ctx.db.withPlugin({
    transformQuery: ({ node }) => {
      const text = JSON.stringify(node)
      asked.push(/"apps"/.test(text) ? 'app' : 'addresses')
      most = Math.max(most, ++now)
      return node
    },
    transformResult: async ({ result }) => {
      // Long enough for all that may go at once to have begun.
      await ctx.clock.sleep(5)
      now--
      return result
    },
  })
  const find = openLookup({ ...ctx, db })
  const found = await Promise.all(Array.from({ length: 64 }, () => find('named')))
  assert.equal(new Set(found.map((one) => one?.join())).size, 1)
  assert.deepEqual(asked, ['app', 'addresses'])
  asked.length = 0
  // Names of apps are read together, their addresses one by one.
  const org = await ensureOrg(ctx, 'personal', 'Personal')
  const many = Array.from({ length: 40 }, (_, n) => `flood-${n}`)
  for (const name of many) await createApp(ctx, { org, name })
  await Promise.all(many.map(find))
  assert.equal(asked.filter((one) => one === 'addresses').length, 40)
  assert.ok(most >= 2 && most <= 4, `${most} at once`)
  asked.length = 0
  assert.equal(await find('nobody'), undefined)
  assert.equal(await find('nobody'), undefined)
  assert.equal(asked.length, 1)
  lateMs += 1_000
  await find('nobody')
  assert.equal(asked.length, 2)
})

test('a look-up that failed is made again', async () => {
  const { ctx } = control
  let fails = true
  const db = ctx.db.withPlugin({
    transformQuery: ({ node }) => {
      if (fails) throw new Error('no database')
      return node
    },
    transformResult: async ({ result }) => result,
  })
  const find = openLookup({ ...ctx, db })
  const tries = await Promise.allSettled(Array.from({ length: 9 }, (_, n) => find(`try-${n}`)))
  assert.ok(tries.every(({ status }) => status === 'rejected'))
  await assert.rejects(find('named'), /no database/)
  fails = false
  assert.ok((await find('named'))?.length)
})

test('a taken port is told', async () => {
  await assert.rejects(serveNames(control.ctx, { address: '127.0.0.1', port: names.port }))
})
