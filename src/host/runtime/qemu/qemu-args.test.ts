import assert from 'node:assert/strict'
import test from 'node:test'
import { architecture, qemuArgs } from './qemu-args.ts'

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

test('a processor that no machine is known for is refused by its name', () => {
  assert.throws(() => architecture('riscv64'), /no machine is known for the processor riscv64/)
})
