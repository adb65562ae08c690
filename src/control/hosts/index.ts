export { openHostDirectory, type HostDirectory, type KnownHost } from './directory.ts'
export {
  askHost,
  callHost,
  freshHosts,
  hostCallTimeoutMs,
  streamHost,
  type HostCall,
  type HostRef,
} from './host-client.ts'
