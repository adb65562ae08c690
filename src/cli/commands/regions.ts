import type { Call, Command } from '../command.ts'
import { jsonFlag } from '../flags.ts'
import { colorsOf, sayJson } from '../io.ts'
import { platformRegions } from '../regions.ts'
import { sayTable } from '../table.ts'

async function runList({ io, flags, api }: Call): Promise<number> {
  const { Regions, Nearest } = await platformRegions(api())
  const regions = Regions.filter(({ deprecated }) => !deprecated).sort((a, b) =>
    a.name < b.name ? -1 : 1,
  )
  if (flags.on('json')) {
    sayJson(io, regions)
    return 0
  }
  const areas = [...new Set(regions.map(({ geo_region }) => geo_region))].sort()
  const rows: string[][] = []
  for (const area of areas) {
    rows.push([''], [colorsOf(io).underline(area.replaceAll('_', ' '))])
    for (const region of regions.filter(({ geo_region }) => geo_region === area)) {
      rows.push([region.name, region.code, region.code === Nearest ? 'nearest' : ''])
    }
  }
  sayTable(io, { headers: ['Name', 'Code', ''], rows })
  return 0
}

const list: Command = {
  name: 'list',
  aliases: ['ls'],
  summary: 'List regions',
  flags: [jsonFlag],
  run: runList,
}

export const regions: Command = {
  name: 'regions',
  aliases: ['region'],
  summary: 'Show the regions of this cloud',
  commands: [list],
}

export const platform: Command = {
  name: 'platform',
  summary: 'Show what the platform offers',
  commands: [{ ...list, name: 'regions', aliases: [] }],
}
