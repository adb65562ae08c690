/**
 * The system calls that a container of a machine may not make. Everything else is allowed: Docker's profile is the
 * other way round, a list of what is allowed, and refuses the same calls to a container with default capabilities.
 * A refusal is EPERM, except for clone3: there ENOSYS makes C libraries fall back to clone, whose flags can be seen.
 */
const denied = [
  'acct',
  'add_key',
  'bpf',
  'clock_adjtime',
  'clock_adjtime64',
  'clock_settime',
  'clock_settime64',
  'create_module',
  'delete_module',
  'fanotify_init',
  'finit_module',
  'fsconfig',
  'fsmount',
  'fsopen',
  'fspick',
  'get_kernel_syms',
  'init_module',
  'io_uring_enter',
  'io_uring_register',
  'io_uring_setup',
  'ioperm',
  'iopl',
  'kcmp',
  'kexec_file_load',
  'kexec_load',
  'keyctl',
  'lookup_dcookie',
  'mount',
  'mount_setattr',
  'move_mount',
  'move_pages',
  'name_to_handle_at',
  'nfsservctl',
  'open_by_handle_at',
  'open_tree',
  'perf_event_open',
  'pivot_root',
  'query_module',
  'quotactl',
  'quotactl_fd',
  'reboot',
  'request_key',
  'setns',
  'settimeofday',
  'stime',
  'swapoff',
  'swapon',
  'sysfs',
  '_sysctl',
  'syslog',
  'umount',
  'umount2',
  'unshare',
  'uselib',
  'userfaultfd',
  'ustat',
  'vhangup',
  'vm86',
  'vm86old',
]

/** CLONE_NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET and NEWNS: what clone can be asked for, each alone. */
const namespaceFlags = [
  0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000, 0x0002_0000,
]

/** Sockets to the hypervisor and to other virtual machines: they are of no network namespace, so no filter sees them. */
const afVsock = 40

const eperm = 1
const enosys = 38

const architectures: Record<string, string[]> = {
  x64: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'],
  arm64: ['SCMP_ARCH_AARCH64', 'SCMP_ARCH_ARM'],
}

export function seccompProfile(arch: string = process.arch): object {
  const refuse = (names: string[], errnoRet: number, args?: object[]) => ({
    names,
    action: 'SCMP_ACT_ERRNO',
    errnoRet,
    ...(args ? { args } : {}),
  })
  const cloneRules = namespaceFlags.map((flag) =>
    refuse(['clone'], eperm, [{ index: 0, value: flag, valueTwo: flag, op: 'SCMP_CMP_MASKED_EQ' }]),
  )
  return {
    defaultAction: 'SCMP_ACT_ALLOW',
    architectures: architectures[arch] ?? [],
    syscalls: [
      refuse(denied, eperm),
      refuse(['clone3'], enosys),
      refuse(['socket'], eperm, [{ index: 0, value: afVsock, op: 'SCMP_CMP_EQ' }]),
      ...cloneRules,
    ],
  }
}
