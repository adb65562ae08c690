import type { Agent } from './agent.ts'

/** Each costs a loop device and a little kernel memory. */
const imagesMax = 64

/**
 * The squashfs files that stay mounted for machines that may start again, those used last first, so that a request to a
 * sleeping machine does not wait for a mount. None on a host that is being taken down.
 */
export function imagesToKeep(agent: Pick<Agent, 'mode' | 'store' | 'images'>): string[] {
  if (agent.mode === 'down') return []
  const kept = [...agent.store.machines.all()]
    .filter(({ destroyedAt, life }) => destroyedAt === null && life.state !== 'destroying')
    .toSorted((a, b) => b.changedAt - a.changedAt)
  const digests = new Set<string>()
  for (const { image } of kept) {
    if (digests.size >= imagesMax) break
    digests.add(image.digest)
  }
  return [...digests].flatMap((digest) => agent.images.find(digest)?.squashfsPath ?? [])
}
