import { z } from 'zod'
import { Fault } from '#core/fault.ts'
import { httpRequest, readBody } from '#sys/http-client.ts'
import type { ControlContext } from '../context.ts'
import { registryService, signRegistryToken } from './registry-token.ts'

const manifestTypes = [
  'application/vnd.docker.distribution.manifest.v2+json',
  'application/vnd.oci.image.manifest.v1+json',
]

const manifestSchema = z.looseObject({
  config: z.looseObject({ size: z.int() }),
  layers: z.array(z.looseObject({ size: z.int() })),
})

export interface BuiltImage {
  ref: string
  digest: string
  /** Compressed bytes of the layers. */
  size: number
}

/** What the registry holds under a tag: the truth about what was pushed. */
export async function describePushed(
  ctx: ControlContext,
  image: { repository: string; tag: string },
): Promise<BuiltImage> {
  const { token } = await signRegistryToken(ctx, {
    subject: 'control',
    service: registryService,
    access: [{ type: 'repository', name: image.repository, actions: ['pull'] }],
  })
  const path = `/v2/${image.repository}/manifests/${image.tag}`
  const answer = await httpRequest(`http://${ctx.settings.registry_host}`, {
    method: 'GET',
    path,
    headers: { authorization: `Bearer ${token}`, accept: manifestTypes.join(', ') },
    timeoutMs: 10_000,
  })
  const text = (await readBody(answer.body, 4 * 1024 * 1024)).toString('utf8')
  const digest = answer.headers['docker-content-digest']
  if (answer.status !== 200 || typeof digest !== 'string') {
    throw new Fault(
      'native_failed',
      `the registry does not show ${image.repository}:${image.tag} after the push: ${answer.status} ${text.slice(0, 300)}`,
    )
  }
  const { layers } = manifestSchema.parse(JSON.parse(text))
  return {
    ref: `${ctx.settings.registry_host}/${image.repository}:${image.tag}`,
    digest,
    size: layers.reduce((sum, layer) => sum + layer.size, 0),
  }
}
