import { once } from 'node:events'
import type { LocalImage } from '#host/image/index.ts'
import type { Hook, Launch } from './hook.ts'

/** The image of a stopped machine stays on its host: most starts need no network. */
export const imageHook: Hook = {
  name: 'image',
  async prestart(launch) {
    launch.image = launch.agent.images.find(launch.record.image.digest) ?? (await pull(launch))
  },
}

async function pull({ agent, record, signal }: Launch): Promise<LocalImage> {
  const message = `Pulling container image ${record.image.ref}`
  agent.spool.say(record.id, { provider: 'runner', message })
  const ended = new AbortController()
  try {
    // A pull goes on for whoever else wants the image, but a kill does not wait for it.
    const interrupted = once(signal, 'abort', { signal: ended.signal }).then(() => {
      throw signal.reason
    })
    return await Promise.race([agent.images.ensure(record.image), interrupted])
  } finally {
    ended.abort()
  }
}
