import { Fault } from '#core/fault.ts'
import type { AppRecord } from '../apps/index.ts'
import type { Org } from '../orgs/index.ts'
import type { Caller } from './tokens.ts'

export type Access = 'read' | 'write'

/** Whether the caller may read or change anything of this organisation. A `deploy` token only reads its basics. */
export function mayUseOrg(caller: Caller, orgId: string, access: Access): boolean {
  const { scope } = caller
  if (scope.profile === 'admin') return true
  if (scope.org_id !== orgId) return false
  return access === 'read' || scope.profile === 'org'
}

export function mayUseApp(
  caller: Caller,
  app: Pick<AppRecord, 'id' | 'org'>,
  access: Access,
): boolean {
  if (caller.scope.profile === 'deploy') return caller.scope.app_id === app.id
  return mayUseOrg(caller, app.org.id, access)
}

/** MCH-2: 403 also tells a client that the name is taken elsewhere. */
export function requireApp(caller: Caller, app: AppRecord, access: Access): void {
  if (mayUseApp(caller, app, access)) return
  if (access === 'write' && mayUseApp(caller, app, 'read')) {
    throw new Fault(
      'forbidden',
      `this token may only read app ${app.name}; use a token that may change it`,
    )
  }
  throw new Fault(
    'forbidden',
    `app ${app.name} belongs to an organization that this token cannot see`,
  )
}

export function requireOrg(caller: Caller, org: Org, access: Access): void {
  if (mayUseOrg(caller, org.id, access)) return
  throw new Fault(
    'forbidden',
    `this token may not ${access === 'read' ? 'see' : 'change'} organization ${org.slug}`,
  )
}
