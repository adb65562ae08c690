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
import { answerQuery, serveNames, type NameServer } from './names.ts'

let control: TestControl
let names: NameServer
let app: AppRecord

before(async () => {
  control = await startTestControl()
  const org = await ensureOrg(control.ctx, 'personal', 'Personal')
  app = await createApp(control.ctx, { org, name: 'named' })
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
  assert.equal(await answerQuery(control.ctx, response), undefined)
  const good = dns.encode({
    type: 'query',
    id: 1,
    questions: [{ name: 'named.fly.dev', type: 'A' }],
  })
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
      const answer = await answerQuery(control.ctx, bytes)
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

test('a taken port is told', async () => {
  await assert.rejects(serveNames(control.ctx, { address: '127.0.0.1', port: names.port }))
})
