import { messageOf } from '#core/fault.ts'
import { runControl as run, type ControlContext } from '#control/index.ts'
import type { ControlSettings } from '#spec/settings.ts'
import { serveNames } from './names.ts'
import { serveApi } from './server.ts'

export { createApi, serveApi } from './server.ts'

/** The whole control role: control with its doors open. Runs until the process is told to stop. */
export function runControl(settings: ControlSettings): Promise<void> {
  return run(settings, serveDoors)
}

async function serveDoors(ctx: ControlContext): Promise<{ close(): Promise<void> }> {
  const api = await serveApi(ctx)
  // Names are a comfort of isolated clients: without them everything else works.
  const names = await serveNames(ctx, ctx.settings.listen).catch((error: unknown) => {
    const { address, port } = ctx.settings.listen
    ctx.log.warn(`names are not answered on ${address}:${port}/udp: ${messageOf(error)}`)
    return undefined
  })
  return {
    async close() {
      await Promise.all([names?.close(), api.close()])
    },
  }
}
