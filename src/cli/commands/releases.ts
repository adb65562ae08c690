import { systemClock } from '#core/clock.ts'
import { relativeTime } from '../age.ts'
import { getApp, listReleases } from '../apps.ts'
import type { Call, Command } from '../command.ts'
import { aboutApp, jsonFlag } from '../flags.ts'
import { say, sayJson } from '../io.ts'
import { sayTable } from '../table.ts'

/** As many as flyctl shows. */
const shown = 25

async function runReleases(call: Call): Promise<number> {
  const { io, flags } = call
  const api = call.api()
  const name = await call.appName()
  await getApp(api, name)
  const releases = (await listReleases(api, name)).slice(0, shown)
  if (flags.on('json')) {
    sayJson(io, releases)
    return 0
  }
  if (releases.length === 0) {
    say(io, `No releases of ${name} yet; make one with: hangar deploy`)
    return 0
  }
  const withImage = flags.on('image')
  sayTable(io, {
    headers: [
      'Version',
      'Status',
      'Description',
      'User',
      'Date',
      ...(withImage ? ['Docker Image'] : []),
    ],
    rows: releases.map((release) => [
      `v${release.version}`,
      release.status,
      release.description,
      release.user,
      relativeTime(release.created_at, systemClock.now()),
      ...(withImage ? [release.image_ref ?? ''] : []),
    ]),
  })
  return 0
}

export const releases: Command = {
  name: 'releases',
  summary: 'List app releases',
  flags: [
    ...aboutApp,
    jsonFlag,
    { name: 'image', kind: 'switch', summary: 'Display the image reference of each release' },
  ],
  run: runReleases,
}
