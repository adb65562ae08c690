import type { AppRecord } from '#control/apps/index.ts'
import { storeSecrets, type SecretValues } from '../secrets.ts'
import { appOfInput, type Graph } from './context.ts'
import { appView } from './views.ts'

interface SetInput {
  appId: string
  secrets: { key: string; value: string }[]
  replaceAll?: boolean | null
}

/** SEC-4, as older clients and libraries set secrets. Of a key that is named twice the last value counts. */
export const secretMutations = {
  setSecrets: async ({ input }: { input: SetInput }, graph: Graph) => {
    const app = await appOfInput(graph, input.appId, 'write')
    const values = Object.fromEntries(input.secrets.map(({ key, value }) => [key, value]))
    return store(graph, app, values, { replaceAll: input.replaceAll ?? false })
  },

  unsetSecrets: async ({ input }: { input: { appId: string; keys: string[] } }, graph: Graph) => {
    const app = await appOfInput(graph, input.appId, 'write')
    return store(graph, app, Object.fromEntries(input.keys.map((key) => [key, null])))
  },
}

async function store(
  graph: Graph,
  app: AppRecord,
  values: SecretValues,
  options: { replaceAll?: boolean } = {},
) {
  await storeSecrets(graph.ctx, app, values, options)
  return { app: appView(graph, app), release: null, clientMutationId: null }
}
