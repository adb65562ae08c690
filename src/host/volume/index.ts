export { growUnmounted, lengthen, repairDisk } from './disk-programs.ts'
export type { DiskStream } from './disk-stream.ts'
export { openVolumes } from './volumes.ts'
export type {
  DiskCounts,
  VolumeContent,
  Volumes,
  VolumesOptions,
  VolumeUsage,
  VolumeVms,
} from './volumes.ts'
