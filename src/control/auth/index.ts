export { mayUseApp, mayUseOrg, requireApp, requireOrg, type Access } from './permissions.ts'
export {
  createToken,
  ensureFirstToken,
  revokeToken,
  verifyHeader,
  verifyToken,
  type Caller,
} from './tokens.ts'
