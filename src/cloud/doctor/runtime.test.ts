import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { HostInfo } from '#spec/host-api.ts'
import { checkInit } from './programs.ts'
import { judgeDropped, judgeHost, judgeVms } from './runtime.ts'

const host = (runtime: Partial<HostInfo>): HostInfo => ({
  id: 'ord1',
  number: 1,
  region: 'ord',
  pid: 1,
  runtime: 'container',
  runtime_note: 'a note',
  machines: 0,
  capacity: { cpus: 1, memory_mb: 1 },
  used: { cpus: 0, memory_mb: 0, machines: 0 },
  ...runtime,
})

test('what VMs need is named, with what to do about it', () => {
  assert.equal(judgeVms({ qemu: true, kvm: true }).state, 'ok')
  assert.match(judgeVms({ qemu: false, kvm: true }).remedy ?? '', /scripts\/setup/)
  const emulated = judgeVms({ qemu: true, kvm: false })
  assert.match(emulated.cost ?? '', /weaker wall/)
  assert.match(emulated.remedy ?? '', /--runtime qemu/)
})

test('a container is told as the weaker wall, a VM as what it is, and an open question as one', () => {
  const container = judgeHost(host({ isolation: 'container' }))
  assert.equal(container.state, 'warn')
  assert.match(`${container.found} ${container.cost}`, /ord1: containers; a note .*weaker wall/)
  const vm = judgeHost(host({ runtime: 'qemu', accel: 'kvm', isolation: 'vm' }))
  assert.deepEqual([vm.state, vm.found], ['ok', 'ord1: VMs by qemu (kvm); a note'])
  assert.equal(judgeHost(host({ runtime: 'auto' })).found, 'ord1: a note')
})

test('what the walls dropped is told, and a machine that keeps trying is named', () => {
  const packets = { spoofed: 1, to_host: 2, to_machines: 3, foreign: 0 }
  const told = (machines: { id: string; packets: number }[]) =>
    judgeDropped(host({ dropped: { ...packets, machines } }))[0]
  assert.deepEqual(judgeDropped(host({})), [])
  assert.equal(told([{ id: 'a', packets: 6 }])?.state, 'ok')
  const loud = told([{ id: 'a', packets: 5_000 }])
  assert.equal(loud?.state, 'warn')
  assert.match(loud?.found ?? '', /ord1: .*1 spoofed, 2 to host, 3 to machines.*a \(5000\)/)
})

test('without PID 1 no machine starts, and what builds it is named', () => {
  assert.equal(checkInit().state, 'ok')
  const { state, found, remedy } = checkInit('/nowhere/init')
  assert.deepEqual([state, found, remedy], ['fail', '/nowhere/init is not built', 'scripts/setup'])
})
