import { Fault } from '#core/fault.ts'
import type { ResolvedImage } from '#spec/host-api.ts'
import type { AppRecord } from '#control/apps/index.ts'
import { resolveImage } from '#control/hosts/index.ts'
import { checkImageAccess } from '#control/machines/index.ts'
import { notYet, type Graph } from './context.ts'

/**
 * TOML-23: the image behind a name, for a client that will put `ref` into machine configs as it is. Its fault says why
 * there is none, which a bare null would hide.
 */
export async function imageOf(graph: Graph, app: AppRecord, ref: string) {
  await checkImageAccess(graph.ctx, app, ref)
  const image = await resolveImage(graph.ctx, { image: ref })
  return {
    id: image.digest,
    digest: image.tag === '' ? '' : image.digest,
    ref: nameOf(image),
    compressedSize: Math.min(image.size, 0x7fff_ffff),
    compressedSizeFull: String(image.size),
    manifest: null,
  }
}

/**
 * Clients of single machines put `@digest` behind this name themselves; clients of deploys use it as it is, and control
 * pins what they name. Only an image that has no tag carries its digest.
 */
const nameOf = ({ registry, repository, tag, digest }: ResolvedImage): string =>
  `${registry}/${repository}${tag === '' ? `@${digest}` : `:${tag}`}`

export const imageQueries = {
  latestImageTag: () => notYet('images of managed databases are'),

  /** Clients ask whether a newer image of a database is out; these words mean that nobody keeps track of this one. */
  latestImageDetails: (args: { image: string }) => {
    throw new Fault('not_found', `Unknown repository: no newer image is known for ${args.image}`)
  },
}
