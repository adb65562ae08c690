export { openHostDirectory, type HostDirectory, type KnownHost } from './directory.ts'
export {
  askHost,
  callHost,
  callHostBytes,
  freshHosts,
  hostCallTimeoutMs,
  openHostSocket,
  streamHost,
  type HostCall,
  type HostRef,
} from './host-client.ts'
export { knownRegions, placeableRegions, regionList, type RegionRow } from './regions.ts'
export { describeHosts } from './describe.ts'
export { resolveImage } from './resolve-image.ts'
export { watchHosts } from './watch.ts'
