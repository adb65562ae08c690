export {
  allocateAddress,
  listAddresses,
  releaseAddress,
  type IpAssignment,
  type IpRequest,
} from './addresses.ts'
