export {
  approveLogin,
  getLogin,
  pollLogin,
  redeemLogin,
  startLogin,
  type Fetched,
  type Login,
} from './logins.ts'
export {
  appsReadBy,
  covers,
  mayUseApp,
  mayUseOrg,
  orgsKnownTo,
  requireApp,
  requireOperator,
  requireOrg,
  type Access,
  type OrgAccess,
} from './permissions.ts'
export {
  createToken,
  ensureFirstToken,
  listTokens,
  logOut,
  mintToken,
  revokeTokenFor,
  type TokenInfo,
} from './tokens.ts'
export { authenticate, verifyTokens, type Caller } from './verify.ts'
