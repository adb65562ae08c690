import { existsSync, statfsSync } from 'node:fs'
import { dirname } from 'node:path'
import { readTextFile } from '#sys/files.ts'
import { closedFolderAbove, type Home } from '../home.ts'
import { fail, ok, warn, type Finding } from './finding.ts'

const gibibyte = 1024 ** 3
const shown = (bytes: number) => `${(bytes / gibibyte).toFixed(1)} GiB free`

function judgeRoom(options: {
  name: string
  free: number
  comfortable: number
  least: number
  cost: string
  remedy: string
}): Finding {
  const { name, free, comfortable, least, cost, remedy } = options
  if (free >= comfortable) return ok(name, shown(free))
  return (free >= least ? warn : fail)(name, shown(free), cost, remedy)
}

export function checkRoom(home: Home): Finding[] {
  let folder = home.dir
  while (!existsSync(folder)) folder = dirname(folder)
  const disk = statfsSync(folder)
  const available = /^MemAvailable:\s+(\d+) kB/m.exec(readTextFile('/proc/meminfo') ?? '')?.[1]
  const closed = closedFolderAbove(home)
  return [
    judgeRoom({
      name: 'disk',
      free: disk.bavail * disk.bsize,
      comfortable: 5 * gibibyte,
      least: gibibyte,
      cost: `images, volumes and builds live below ${home.dir}`,
      remedy: 'make room, or choose another place with HANGAR_HOME',
    }),
    judgeRoom({
      name: 'memory',
      free: Number(available ?? 0) * 1024,
      comfortable: 1.5 * gibibyte,
      least: 0.6 * gibibyte,
      cost: 'the cloud itself takes about 0.6 GiB, each machine what its size says',
      remedy: 'stop other programs, or give this machine more memory',
    }),
    closed
      ? fail(
          'home',
          `other users may not pass through ${closed}`,
          'PostgreSQL, which runs as its own user, cannot reach its data',
          `chmod o+x ${closed}, or choose another place with HANGAR_HOME`,
        )
      : ok('home', home.dir),
  ]
}
