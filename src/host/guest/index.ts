/** The door of the room: the host's end of the guest protocol. */
export { dialUnix, dialVsock } from './dial.ts'
export { protocolVersion } from './frames.ts'
export { Guest } from './guest.ts'
export type { GuestExecRequest, GuestExecResult, GuestMetrics } from './errands.ts'
export type { GuestOptions } from './guest.ts'
export type {
  GuestExit,
  GuestFile,
  GuestOpen,
  GuestOutput,
  GuestRun,
  GuestVm,
  TerminalSize,
  Welcome,
} from './messages.ts'
export type { GuestProcess } from './streams.ts'
export { guestKernel } from './kernel.ts'
export type { GuestKernel, KernelOptions } from './kernel.ts'
