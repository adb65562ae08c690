export {
  openHostNet,
  type AttachRequest,
  type Attachment,
  type DroppedPackets,
  type HostNet,
  type HostNetOptions,
} from './host-net.ts'
export { netDoctor, type NetProblem } from './net-doctor.ts'
