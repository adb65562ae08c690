export {
  connectDatabase,
  isDatabaseDown,
  isUniqueViolation,
  migrate,
  openDatabase,
  type Db,
} from './database.ts'
export { readTogether } from './read-together.ts'
export { loadSecretBox, secretBox, type SecretBox } from './secret-box.ts'
export type {
  BuildStatus,
  Database,
  IpType,
  PlacementStatus,
  TokenScope,
  VolumeStatus,
} from './schema.ts'
