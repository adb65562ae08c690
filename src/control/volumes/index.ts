export {
  changeVolume,
  createVolume,
  destroyAbandonedVolumes,
  destroyVolume,
  doomVolumes,
  findVolume,
  getVolume,
  listVolumes,
  type VolumePlacement,
} from './volumes.ts'
