import { Fault } from '#core/fault.ts'

export type Accel = 'kvm' | 'tcg'

interface Architecture {
  program: string
  machine: string
  /** Of the kernel's command line. */
  kernelWords: Record<Accel, string>
  cpu: Record<Accel, string>
  /** The guest finds the disk first of which QEMU was told last. */
  disksBackwards: boolean
  /** A kernel in TCG is told how fast the TSC counts. */
  hasTsc: boolean
}

/**
 * What differs between processors. On x86 the smallest machine that boots: no PCI, no BIOS menu, no legacy timers. A guest
 * reboots by a triple fault, which ends QEMU. A kernel in TCG takes hundreds of milliseconds to find out how fast the TSC
 * counts, and half of the times fails: it is told. It is the host's own, and its clock goes wrong with another's. The `virt` machine of ARM has booted Debian's kernel by TCG, and no machine of ours yet.
 */
const architectures: Partial<Record<NodeJS.Architecture, Architecture>> = {
  x64: {
    program: 'qemu-system-x86_64',
    machine: 'microvm,acpi=on,pit=off,pic=off,rtc=on,isa-serial=on',
    kernelWords: {
      kvm: 'console=ttyS0 8250.nr_uarts=1 reboot=t pci=off',
      tcg: 'console=ttyS0 8250.nr_uarts=1 reboot=t pci=off mitigations=off',
    },
    cpu: { kvm: 'host', tcg: 'max' },
    disksBackwards: false,
    hasTsc: true,
  },
  arm64: {
    program: 'qemu-system-aarch64',
    machine: 'virt,gic-version=max',
    kernelWords: { kvm: 'console=ttyAMA0', tcg: 'console=ttyAMA0' },
    cpu: { kvm: 'host', tcg: 'max' },
    disksBackwards: true,
    hasTsc: false,
  },
}

export function architecture(name: NodeJS.Architecture = process.arch): Architecture {
  const found = architectures[name]
  if (found) return found
  throw new Fault('native_failed', `no machine is known for the processor ${name}`)
}

const commonWords = 'quiet panic=-1 cryptomgr.notests random.trust_cpu=on'

/** What QEMU keeps of translated code; its default is a large part of the host's memory. */
const translationMb = 64

/** Numbers of the files that are handed to QEMU open: it may open none of them by name. */
export const fds = { kernel: 3, initramfs: 4, image: 5, upper: 6, memory: 7, volumes: 8 } as const

export const sockets = { qmp: 'qmp.sock', guest: 'guest.sock', console: 'console.sock' } as const

export interface MachineShape {
  accel: Accel
  cpus: number
  memoryMb: number
  /** How fast this host's processor counts; 0 when it does not. */
  tscKhz?: number | undefined
  /** Of the machine's link, when it has one. */
  nic?: { tap: string; mac: string }
  /** Without disks only PID 1 boots. */
  disks: boolean
  volumes: number
}

/** Guest device names follow from the order of the disks. */
export const devices = {
  image: '/dev/vda',
  upper: '/dev/vdb',
  volume: (i: number) => `/dev/vd${String.fromCharCode('c'.charCodeAt(0) + i)}`,
}

function disk(name: string, fd: number, options: { readOnly: boolean }): string[] {
  const common = `driver=raw,node-name=${name},file.driver=file,file.filename=/dev/fdset/${fd}`
  // An image is everybody's; a disk that is written is locked against a second writer.
  const access = options.readOnly ? 'read-only=on,file.locking=off' : 'discard=unmap'
  return [
    ['-add-fd', `fd=${fd},set=${fd}`],
    ['-blockdev', `${common},${access}`],
    ['-device', `virtio-blk-device,drive=${name}`],
  ].flat()
}

/** The whole command line of a machine; with the same shape always the same words. */
export function qemuArgs(shape: MachineShape, on = architecture()): string[] {
  const { machine, kernelWords, cpu } = on
  const isTold = on.hasTsc && shape.accel === 'tcg' && shape.tscKhz
  const tsc = isTold ? ` tsc_early_khz=${shape.tscKhz}` : ''
  const { accel, cpus, memoryMb, nic } = shape
  const socket = (name: keyof typeof sockets) =>
    `socket,id=${name},path=${sockets[name]},server=on,wait=off`
  const volumes = Array.from({ length: shape.volumes }, (_, i) =>
    disk(`volume${i}`, fds.volumes + i, { readOnly: false }),
  )
  const disks = shape.disks
    ? [
        disk('image', fds.image, { readOnly: true }),
        disk('upper', fds.upper, { readOnly: false }),
        ...volumes,
      ]
    : volumes
  const network = `tap,id=net,ifname=${nic?.tap},script=no,downscript=no,vhost=off`
  // Both ends of the link know each other for good: a guest that is resumed has nobody to announce itself to.
  const card = 'virtio-net-device,netdev=net,guest_announce=off'
  return [
    ['-M', machine, '-accel', accel === 'tcg' ? `tcg,tb-size=${translationMb}` : 'kvm'],
    ['-cpu', cpu[accel], '-smp', String(cpus), '-m', String(memoryMb)],
    ['-nodefaults', '-no-user-config', '-nographic', '-no-reboot'],
    ['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'],
    ['-kernel', `/proc/self/fd/${fds.kernel}`, '-initrd', `/proc/self/fd/${fds.initramfs}`],
    ['-append', `${commonWords} ${kernelWords[accel]}${tsc}`],
    ...(on.disksBackwards ? disks.toReversed() : disks),
    nic ? ['-netdev', network, '-device', `${card},mac=${nic.mac}`] : [],
    ['-object', 'rng-builtin,id=rng', '-device', 'virtio-rng-device,rng=rng'],
    ['-device', 'virtio-balloon-device,free-page-reporting=on,deflate-on-oom=on'],
    ['-chardev', socket('qmp'), '-mon', 'chardev=qmp,mode=control'],
    ['-chardev', socket('console'), '-serial', 'chardev:console'],
    ['-device', 'virtio-serial-device', '-chardev', socket('guest')],
    ['-device', 'virtserialport,chardev=guest,name=hangar'],
  ].flat()
}
