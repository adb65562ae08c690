export { mayUseApp, mayUseOrg, requireApp, requireOrg, type Access } from './permissions.ts'
export {
  createToken,
  ensureFirstToken,
  findToken,
  listTokens,
  revokeToken,
  verifyHeader,
  verifyToken,
  type Caller,
  type TokenInfo,
} from './tokens.ts'
