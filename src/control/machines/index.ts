export {
  acquireLease,
  currentLease,
  destroyMachine,
  execMachine,
  machineAction,
  machineMetadata,
  machineVerbs,
  openProgram,
  releaseLease,
  setMachineMetadata,
  updateMachine,
  type ActOptions,
  type MachineVerb,
} from './act.ts'
export { createMachine, type CreateOptions } from './create.ts'
export { findMachineApp, findVolumeApp } from './find-app.ts'
export { appLogs, type LogFilter } from './logs.ts'
export { deleteApp, finishDeletions } from './delete-app.ts'
export { placementsOf } from './placements.ts'
export { listMachines, listMachinesJson, type MachineFilter } from './list.ts'
export { destroyAbandoned } from './janitor.ts'
export { oneAtATime } from './one-at-a-time.ts'
export {
  getMachine,
  machineEvents,
  machineProcesses,
  machineRouted,
  machineVersions,
} from './read.ts'
export { appsWithStaleSecrets, pushSecrets } from './secrets-push.ts'
export { hostLostMsMin, standbyKeeper } from './standbys.ts'
export { strayKeeper, strayMachines } from './strays.ts'
export { checkImageAccess, describeIssue, ownRepository } from './validate.ts'
export { waitMachine, type WaitOptions } from './wait.ts'
