import { runControl as run } from '#control/index.ts'
import type { ControlSettings } from '#spec/settings.ts'
import { serveApi } from './server.ts'

export { createApi, serveApi } from './server.ts'

/** The whole control role: control with its doors open. Runs until the process is told to stop. */
export function runControl(settings: ControlSettings): Promise<void> {
  return run(settings, serveApi)
}
