export {
  openHostNet,
  type AttachRequest,
  type Attachment,
  type HostNet,
  type HostNetOptions,
} from './host-net.ts'
