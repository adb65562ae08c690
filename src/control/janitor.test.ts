import { test } from 'node:test'
import { eventually } from '#sys/test-support.ts'
import { createApp } from './apps/index.ts'
import { startJanitor } from './janitor.ts'
import { ensureOrg } from './orgs/index.ts'
import { startTestControl } from './test-support.ts'
import { createVolume, doomVolumes } from './volumes/index.ts'

test('a chore that waits holds up no other', async (t) => {
  const control = await startTestControl()
  t.after(() => control.close())
  const stop = new AbortController()
  const ctx = {
    ...control.ctx,
    stopping: stop.signal,
    hosts: {
      ...control.ctx.hosts,
      flush: () =>
        new Promise<void>((resolve) => stop.signal.addEventListener('abort', () => resolve())),
    },
  }
  const app = await createApp(ctx, { org: await ensureOrg(ctx, 'personal', 'Personal') })
  await createVolume(ctx, app, { name: 'data', region: 'ord' })
  await doomVolumes(ctx, app)
  const janitor = startJanitor(ctx)
  const [host] = control.hosts
  await eventually('the volume is gone', () => host?.volumes.size === 0)
  stop.abort()
  await janitor
})
