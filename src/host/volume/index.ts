export { growUnmounted, lengthen, repairDisk, repairedMax } from './disk-programs.ts'
export type { DiskStream } from './disk-stream.ts'
export { openVolumes } from './volumes.ts'
export type { VolumeContent, Volumes, VolumesOptions, VolumeUsage, VolumeVms } from './volumes.ts'
