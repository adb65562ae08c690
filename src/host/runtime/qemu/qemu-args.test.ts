import assert from 'node:assert/strict'
import test from 'node:test'
import { architecture, qemuArgs, type Accel } from './qemu-args.ts'

/** The disks as QEMU is told of them. */
function disksOn(name: NodeJS.Architecture): string[] {
  const shape = { accel: 'tcg', cpus: 1, memoryMb: 256, disks: true, volumes: 2 } as const
  const words = qemuArgs(shape, architecture(name)).join(' ')
  return [...words.matchAll(/virtio-blk-device,drive=(\w+)/g)].map((found) => found[1] ?? '')
}

/** /dev/vda, /dev/vdb, …: on `virt` the transport that is taken first has the highest address, and is found last. */
test('a guest finds image, upper and volumes in this order on each processor', () => {
  const order = ['image', 'upper', 'volume0', 'volume1']
  assert.deepEqual(disksOn('x64'), order)
  assert.deepEqual(disksOn('arm64'), order.toReversed())
})

test('a kernel is told how fast the TSC counts in TCG, on the processor that has one', () => {
  const told = (name: NodeJS.Architecture, accel: Accel, tscKhz?: number) => {
    const shape = { accel, tscKhz, cpus: 1, memoryMb: 256, disks: false, volumes: 0 }
    return qemuArgs(shape, architecture(name)).some((word) => word.includes('tsc_early_khz'))
  }
  assert.ok(told('x64', 'tcg', 2_100_000))
  assert.ok(!told('x64', 'tcg', 0))
  assert.ok(!told('x64', 'kvm', 2_100_000))
  assert.ok(!told('arm64', 'tcg', 2_100_000))
})

test('a processor that no machine is known for is refused by its name', () => {
  assert.throws(() => architecture('riscv64'), /no machine is known for the processor riscv64/)
})
