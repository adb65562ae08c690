import type { Flag } from './command.ts'

/** Flags that several commands share, with flyctl's names and letters. */

export const appFlag: Flag = {
  name: 'app',
  short: 'a',
  kind: 'text',
  value: 'NAME',
  summary: 'Application name',
}
export const configFlag: Flag = {
  name: 'config',
  short: 'c',
  kind: 'text',
  value: 'PATH',
  summary: 'Path to the application configuration file or its folder',
}
export const jsonFlag: Flag = { name: 'json', short: 'j', kind: 'switch', summary: 'JSON output' }
export const yesFlag: Flag = {
  name: 'yes',
  short: 'y',
  kind: 'switch',
  summary: 'Accept all confirmations',
  aliases: ['auto-confirm'],
}
export const quietFlag = (what: string): Flag => ({
  name: 'quiet',
  short: 'q',
  kind: 'switch',
  summary: `Only list ${what}`,
})
export const regionFlag: Flag = {
  name: 'region',
  short: 'r',
  kind: 'text',
  value: 'CODE',
  summary: 'The target region (see "hangar regions list")',
}
export const orgFlag: Flag = {
  name: 'org',
  short: 'o',
  kind: 'text',
  value: 'SLUG',
  summary: 'The organization that will own the app',
}
export const imageFlag: Flag = {
  name: 'image',
  short: 'i',
  kind: 'text',
  value: 'REF',
  summary: 'The Docker image to deploy',
}
export const envFlag: Flag = {
  name: 'env',
  short: 'e',
  kind: 'texts',
  value: 'NAME=VALUE',
  summary: 'Set an environment variable; can be repeated',
}
export const detachFlag: Flag = {
  name: 'detach',
  kind: 'switch',
  summary: 'Return at once instead of following the work',
}
export const nowFlag: Flag = {
  name: 'now',
  kind: 'switch',
  summary: 'Deploy now without confirmation',
}

/** The guest of new machines. */
export const vmFlags: readonly Flag[] = [
  {
    name: 'vm-size',
    kind: 'text',
    value: 'PRESET',
    summary: 'The VM size, such as shared-cpu-1x or performance-2x',
    aliases: ['size'],
  },
  {
    name: 'vm-memory',
    kind: 'text',
    value: 'SIZE',
    summary: 'Memory: a number of MB, or with a unit: 512mb, 1gb',
    aliases: ['memory'],
  },
  { name: 'vm-cpus', kind: 'number', value: 'N', summary: 'Number of CPUs', aliases: ['cpus'] },
  {
    name: 'vm-cpu-kind',
    kind: 'text',
    value: 'KIND',
    summary: 'The kind of CPU: shared or performance',
  },
]

/** App and config: what every command about one app takes. */
export const aboutApp: readonly Flag[] = [appFlag, configFlag]

/** The global flags of a command: a letter that it uses itself stands for its own flag. */
export function globalFlagsOf(command: { flags?: readonly Flag[] }): Flag[] {
  const taken = new Set(command.flags?.map((flag) => flag.short))
  return globalFlags.map(({ short, ...flag }) =>
    short === undefined || taken.has(short) ? flag : { ...flag, short },
  )
}

/** Flags that stand before or after any command. */
export const globalFlags: readonly Flag[] = [
  {
    name: 'access-token',
    short: 't',
    kind: 'text',
    value: 'TOKEN',
    summary: 'API access token (else FLY_ACCESS_TOKEN, FLY_API_TOKEN, $HANGAR_HOME/token)',
  },
  {
    name: 'home',
    kind: 'text',
    value: 'DIR',
    summary: 'Where this cloud lives (else HANGAR_HOME, /var/lib/hangar)',
  },
  { name: 'help', short: 'h', kind: 'switch', summary: 'Help for this command' },
  { name: 'verbose', kind: 'switch', summary: 'Show the cause of an error' },
]
