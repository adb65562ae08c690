import assert from 'node:assert/strict'
import { test } from 'node:test'
import { newMachineId } from '#core/ids.ts'
import { fakeDriver } from '#host/runtime/index.ts'
import { createTestMachine, openTestHost } from './testing.ts'

test('what runs and is no machine of the store is ended when the host comes back, and nothing else', async (t) => {
  const driver = fakeDriver()
  let host = await openTestHost(t, { driver })
  const machine = await createTestMachine(host)
  const gone = newMachineId()
  const spec = driver.spec(machine.id) ?? assert.fail()
  await driver.start({ ...spec, id: gone })
  host = await host.reopen()
  await host.agent.queue.idle()
  assert.deepEqual(await driver.list(), [machine.id])
  assert.ok(driver.calls.includes(`destroy ${gone}`))
  assert.equal(await driver.recover(machine.id), 'running')
})
