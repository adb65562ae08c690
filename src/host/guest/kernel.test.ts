import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { zstdCompressSync } from 'node:zlib'
import { initramfs } from './initramfs.ts'
import { dependenciesOf, inLoadOrder, moduleName } from './modules.ts'
import { payloadOf, unpackKernel } from './vmlinux.ts'

const moduleOf = (...needs: string[]) =>
  Buffer.from(`ELF\0license=GPL\0depends=${needs.join(',')}\0retpoline=Y\0`)

test('modules are loaded after what they need, once, without what is built in', async () => {
  const known = new Map([
    ['virtio_ring', moduleOf()],
    ['virtio', moduleOf('virtio_ring')],
    ['virtio_blk', moduleOf('virtio', 'virtio_ring')],
    ['virtio_net', moduleOf('virtio', 'net-failover')],
    ['net_failover', moduleOf('virtio_net')],
  ])
  const wanted = ['virtio_blk', 'builtin', 'virtio_net']
  const order = await inLoadOrder(wanted, async (name) => known.get(name))
  assert.deepEqual(
    order.map(({ name }) => name),
    ['virtio_ring', 'virtio', 'virtio_blk', 'net_failover', 'virtio_net'],
  )
  assert.deepEqual(dependenciesOf(Buffer.from('no description')), [])
  assert.equal(moduleName('a/b/virtio-rng.ko.xz'), 'virtio_rng')
})

test('an initramfs is what cpio reads back', () => {
  const dir = mkdtempSync(join(tmpdir(), 'hangar-initramfs-'))
  const modules = [
    { name: 'one', content: Buffer.from('first') },
    { name: 'two', content: Buffer.from('') },
  ]
  const archive = initramfs({ init: Buffer.from('the program'), modules })
  try {
    execFileSync('busybox', ['cpio', '-id'], {
      cwd: dir,
      input: archive,
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    assert.equal(readFileSync(join(dir, 'init'), 'utf8'), 'the program')
    assert.equal(readFileSync(join(dir, 'modules/000-one.ko'), 'utf8'), 'first')
    assert.equal(readFileSync(join(dir, 'modules/001-two.ko'), 'utf8'), '')
    assert.match(
      execFileSync('ls', ['-l', join(dir, 'dev')], { encoding: 'utf8' }),
      /^crw.* 5, +1 .*console/m,
    )
  } finally {
    rmSync(dir, { recursive: true })
  }
})

function bzImage(packed: Buffer): Buffer {
  const image = Buffer.alloc(2048)
  image.writeUInt8(1, 0x1f1)
  image.write('HdrS', 0x202, 'latin1')
  image.writeUInt16LE(0x20f, 0x206)
  image.writeUInt32LE(1024, 0x248)
  image.writeUInt32LE(packed.length + 4, 0x24c)
  return Buffer.concat([image, packed, Buffer.from([1, 2, 3, 4]), Buffer.alloc(100)])
}

test('the kernel inside an image is found and unpacked, as xz and as zstd', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'hangar-vmlinux-'))
  const path = join(dir, 'vmlinux')
  const kernel = Buffer.alloc(100_000, 'kernel')
  try {
    writeFileSync(join(dir, 'plain'), kernel)
    const xz = execFileSync('xz', ['--stdout', '--check=crc32', join(dir, 'plain')])
    for (const packed of [xz, zstdCompressSync(kernel)]) {
      assert.equal(await unpackKernel(bzImage(packed), path), true)
      assert.ok(readFileSync(path).equals(kernel))
    }
    assert.equal(await unpackKernel(bzImage(Buffer.from('unknown packing')), path), false)
    const cut = bzImage(xz).subarray(0, 2048 + 10)
    assert.equal(payloadOf(cut), undefined)
    assert.equal(payloadOf(Buffer.alloc(4096)), undefined)
  } finally {
    rmSync(dir, { recursive: true })
  }
})
