export type {
  DiskUsage,
  Driver,
  DriverCapabilities,
  DriverProbe,
  ExecRequest,
  ExecResult,
  ExitRecord,
  MachineFile,
  MachineLimits,
  MachineMount,
  MachineProcess,
  MachineStats,
  MachineVerbs,
  Program,
  ProgramRequest,
  StartSpec,
} from './driver.ts'
export { fakeDriver, fakeVms, type FakeDriver } from './fake-driver.ts'
export { openContainerDriver, type ContainerDriverOptions } from './container-driver.ts'
export { openRuntimes, type Runtimes } from './runtimes.ts'
export { openQemuDriver, type QemuDriverOptions } from './qemu/qemu-driver.ts'
