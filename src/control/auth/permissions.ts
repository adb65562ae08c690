import { Fault } from '#core/fault.ts'
import type { AppRecord } from '../apps/index.ts'
import type { Org } from '../orgs/index.ts'
import type { TokenScope } from '../store/index.ts'
import type { Caller } from './verify.ts'

export type Access = 'read' | 'write'

/** `know`: that it exists, its name and numbers, as a deploy token may. `read` and `write`: everything in it. */
export type OrgAccess = 'know' | Access

type Who = Pick<Caller, 'scope'>

/** Whether the caller may know, read or change this organisation. §8.1. */
export function mayUseOrg({ scope }: Who, orgId: string, access: OrgAccess): boolean {
  if (scope.profile === 'admin') return true
  if (scope.org_id !== orgId || scope.profile === 'identity') return false
  if (access === 'know' || scope.profile === 'org') return true
  return access === 'read' && scope.profile === 'readonly' && scope.app_id === undefined
}

export function mayUseApp(who: Who, app: Pick<AppRecord, 'id' | 'org'>, access: Access): boolean {
  const { scope } = who
  if (scope.app_id === undefined) return mayUseOrg(who, app.org.id, access)
  // The organisation too: a token of one does not follow an app into another.
  if (scope.app_id !== app.id || scope.org_id !== app.org.id) return false
  return scope.profile === 'deploy' || (scope.profile === 'readonly' && access === 'read')
}

/** Making organisations belongs to the operator until there are accounts. */
export function requireOperator({ scope }: Who, what: string): void {
  if (scope.profile === 'admin') return
  throw new Fault('forbidden', `this token may not ${what}; only the operator's token may`)
}

/** Which organisations a list shows: undefined for all of them, `''` for none. */
export function orgsKnownTo({ scope }: Who): string | undefined {
  if (scope.profile === 'admin') return undefined
  return scope.profile === 'identity' ? '' : (scope.org_id ?? '')
}

/** Which apps the caller may read, as a filter of lists. */
export function appsReadBy({ scope }: Who): { orgId?: string; id?: string } {
  const { profile, org_id, app_id } = scope
  if (profile === 'admin') return {}
  if (profile === 'identity') return { id: '' }
  return { orgId: org_id ?? '', ...(app_id === undefined ? {} : { id: app_id }) }
}

/** MCH-2: 403 also tells a client that the name is taken elsewhere. */
export function requireApp(caller: Who, app: AppRecord, access: Access): void {
  if (mayUseApp(caller, app, access)) return
  if (access === 'write' && mayUseApp(caller, app, 'read')) {
    throw new Fault(
      'forbidden',
      `this token may only read app ${app.name}; use a token that may change it`,
    )
  }
  throw new Fault(
    'forbidden',
    mayUseOrg(caller, app.org.id, 'know')
      ? `this token is for another app than ${app.name}; use one of this app or of organization ${app.org.slug}`
      : `app ${app.name} belongs to an organization that this token cannot see`,
  )
}

export function requireOrg(caller: Who, org: Org, access: OrgAccess): void {
  if (mayUseOrg(caller, org.id, access)) return
  throw new Fault(
    'forbidden',
    `this token may not ${access === 'write' ? 'change' : 'see'} organization ${org.slug}`,
  )
}

/** What a token of each profile may make, where the other one reaches no further. */
const narrower: Record<TokenScope['profile'], readonly TokenScope['profile'][]> = {
  admin: ['admin', 'org', 'deploy', 'readonly', 'identity'],
  org: ['org', 'deploy', 'readonly', 'identity'],
  deploy: ['deploy', 'readonly', 'identity'],
  readonly: ['readonly', 'identity'],
  identity: ['identity'],
}

/** Whether everything that `wanted` may do, `has` may do too. */
export function covers(has: TokenScope, wanted: TokenScope): boolean {
  if (has.profile === 'admin') return true
  if (!narrower[has.profile].includes(wanted.profile) || wanted.org_id !== has.org_id) return false
  return has.app_id === undefined || wanted.profile === 'identity' || wanted.app_id === has.app_id
}

/** A token makes none that could do more than itself. Fault `forbidden`. */
export function requireCovered(caller: Who, wanted: TokenScope): void {
  if (covers(caller.scope, wanted)) return
  throw new Fault(
    'forbidden',
    `this token is of profile ${caller.scope.profile} and makes none of profile ${wanted.profile} there: a token makes only what can do no more than itself`,
  )
}

/** Which tokens a caller sees in lists and may revoke: all for the operator, otherwise itself and what it made. */
export function mayManageToken(
  caller: Pick<Caller, 'scope' | 'tokenId'>,
  token: { id: string; madeBy: string | null },
): boolean {
  if (caller.scope.profile === 'admin') return true
  return token.id === caller.tokenId || token.madeBy === caller.tokenId
}
