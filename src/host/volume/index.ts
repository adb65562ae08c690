export { openVolumes } from './volumes.ts'
export type { Volumes, VolumesOptions } from './volumes.ts'
