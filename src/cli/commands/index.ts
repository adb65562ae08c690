import type { Command } from '../command.ts'

/** A verb as the help of the whole program shows it; its file is loaded when it is used. */
export interface Verb extends Pick<Command, 'name' | 'aliases' | 'summary'> {
  load: () => Promise<Command>
}

/** Every verb, in the order of the help. */
export const verbs: readonly Verb[] = [
  {
    name: 'launch',
    summary: 'Create and configure a new app from a folder or an image',
    load: async () => (await import('./launch.ts')).launch,
  },
  {
    name: 'deploy',
    summary: 'Deploy an app from source or an image',
    load: async () => (await import('./deploy.ts')).deploy,
  },
  {
    name: 'status',
    summary: 'Show the status of an app, or of the cloud where no app is named',
    load: async () => (await import('./status.ts')).status,
  },
  {
    name: 'logs',
    aliases: ['log'],
    summary: 'View app logs',
    load: async () => (await import('./logs.ts')).logs,
  },
  {
    name: 'apps',
    aliases: ['app'],
    summary: 'Manage apps',
    load: async () => (await import('./apps.ts')).apps,
  },
  {
    name: 'machine',
    aliases: ['machines', 'm'],
    summary: 'Manage machines',
    load: async () => (await import('./machine.ts')).machine,
  },
  {
    name: 'ssh',
    summary: 'Open a shell in a machine',
    load: async () => (await import('./ssh.ts')).ssh,
  },
  {
    name: 'scale',
    summary: 'Scale app resources',
    load: async () => (await import('./scale.ts')).scale,
  },
  {
    name: 'secrets',
    aliases: ['secret'],
    summary: 'Manage application secrets',
    load: async () => (await import('./secrets.ts')).secrets,
  },
  {
    name: 'releases',
    summary: 'List app releases',
    load: async () => (await import('./releases.ts')).releases,
  },
  {
    name: 'config',
    summary: "Manage an app's configuration",
    load: async () => (await import('./config.ts')).config,
  },
  {
    name: 'volumes',
    aliases: ['volume', 'vol'],
    summary: 'Manage volumes',
    load: async () => (await import('./volumes.ts')).volumes,
  },
  {
    name: 'regions',
    aliases: ['region'],
    summary: 'Show the regions of this cloud',
    load: async () => (await import('./regions.ts')).regions,
  },
  {
    name: 'platform',
    summary: 'Show what the platform offers',
    load: async () => (await import('./regions.ts')).platform,
  },
  {
    name: 'auth',
    summary: 'Log in and out, and see who you are',
    load: async () => (await import('./auth.ts')).auth,
  },
  {
    name: 'orgs',
    aliases: ['org', 'organizations'],
    summary: 'Manage organizations',
    load: async () => (await import('./orgs.ts')).orgs,
  },
  {
    name: 'tokens',
    aliases: ['token'],
    summary: 'Manage API tokens',
    load: async () => (await import('./tokens.ts')).tokens,
  },
  {
    name: 'env',
    summary: 'Print shell exports for flyctl: eval "$(hangar env)"',
    load: async () => (await import('./env.ts')).env,
  },
  {
    name: 'flyctl-wrapper',
    summary: 'Write a program that runs flyctl against this cloud',
    load: async () => (await import('./flyctl-wrapper.ts')).flyctlWrapper,
  },
  {
    name: 'version',
    summary: 'Show version information',
    load: async () => (await import('./version.ts')).version,
  },
]
