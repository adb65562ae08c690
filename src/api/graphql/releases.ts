import type { Release } from '#spec/release.ts'
import { userView } from './people.ts'

/** DEP-1: a release as clients read it, whoever drives it. */
export function releaseView(release: Release) {
  return {
    id: release.id,
    version: release.version,
    description: release.description,
    reason: release.reason,
    status: release.status,
    stable: release.status === 'complete',
    inProgress: release.status === 'pending' || release.status === 'running',
    imageRef: release.image_ref,
    evaluationId: '',
    configDefinition: release.definition,
    user: userView(release.user),
    createdAt: release.created_at,
  }
}
