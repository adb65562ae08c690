import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { Fault } from '#core/fault.ts'
import { createLogger } from '#sys/log.ts'
import { createTestMachine, openTestHost } from './testing.ts'
import { told } from './told.ts'

const dir = '/srv/my hangar (1)/hosts/h1'

function openAgent() {
  const logged: object[] = []
  const log = createLogger('told-test')
  log.level = 'silent'
  log.warn = (fields: object) => void logged.push(fields)
  return { agent: { dirs: [dir, '/srv/cache'], log }, logged }
}

test('a user is told of a volume, a snapshot or a machine, and never where its files are', () => {
  const { agent, logged } = openAgent()
  const cases: [string, string][] = [
    [`cannot copy ${dir}/volumes/vol_a/disk.img.new: busy`, 'cannot copy volume vol_a: busy'],
    [`'${dir}/snapshots/vs_1' is gone.`, "'snapshot vs_1' is gone."],
    [`ENOENT, open '${dir}/vms/machines/m1/upper.img'`, "ENOENT, open 'machine m1'"],
    [`mount ${dir}/runtime/machines/m1/root failed`, 'mount machine m1 failed'],
    [`${dir}/images/sha256.ab/image.sqfs is missing`, "the image's file is missing"],
    [`${dir}/host.sqlite and /srv/cache/vmlinuz`, 'a file of the host and a file of the host'],
  ]
  for (const [whole, shown] of cases) {
    assert.equal(told(agent, new Error(whole)), shown)
    assert.match(JSON.stringify(logged.pop()), /my hangar/, 'the log has the path')
  }
})

test('what is the user’s own is told as it is, and is no news for the host’s log', () => {
  const { agent, logged } = openAgent()
  const words = 'a volume cannot be mounted at /srv/data/volumes/vol_a: /volumes is a file'
  assert.equal(told(agent, new Fault('invalid', words)), words)
  assert.deepEqual(logged, [])
})

test('what helps only who runs the host is in its log', () => {
  const { agent, logged } = openAgent()
  const cause = new Error(`look at it with: e2fsck -n ${dir}/volumes/vol_a/disk.img`)
  assert.equal(told(agent, new Fault('native_failed', 'it is damaged', { cause })), 'it is damaged')
  assert.ok(JSON.stringify(logged).includes('e2fsck -n'))
})

test('an answer, an event and a machine’s log name no file of the host', async (t) => {
  const host = await openTestHost(t)
  const [home = ''] = host.agent.dirs
  const { id } = await createTestMachine(host)
  await host.call('POST', `/v1/machines/${id}/stop`)
  await host.call('GET', `/v1/machines/${id}/wait?state=stopped&timeout=5`)
  await host.agent.queue.idle()
  const fault = new Fault('invalid', `cannot use ${home}/volumes/vol_a/disk.img`)
  host.driver.failNextStart(fault)
  await host.call('POST', `/v1/machines/${id}/start`)
  await host.agent.queue.idle()
  const { lastError } = host.agent.store.machines.get(id)
  assert.equal(lastError, 'cannot use volume vol_a')
  const events = host.agent.store.history.events(id)
  assert.deepEqual(events[0]?.request, { error: lastError })
  const logs = readdirSync(join(home, 'logs'), { recursive: true, withFileTypes: true })
  const lines = logs
    .filter((each) => each.isFile())
    .map((each) => readFileSync(join(each.parentPath, each.name), 'utf8'))
  assert.ok(lines.join().includes('cannot use volume vol_a'), lines.join())
  assert.ok(!lines.join().includes(home))
  host.agent.store.volumes.all = () => {
    throw fault
  }
  await assert.rejects(host.call('GET', '/v1/volumes'), (error: Error) => {
    assert.match(error.message, /cannot use volume vol_a/)
    return true
  })
})
