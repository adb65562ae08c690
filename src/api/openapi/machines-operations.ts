import { z } from 'zod'
import {
  appInputSchema,
  appSchema,
  secretSchema,
  secretsInputSchema,
  secretsResultSchema,
} from '#spec/app.ts'
import { ipAssignmentSchema, ipInputSchema } from '#spec/address.ts'
import {
  certificateDetailSchema,
  certificateInputSchema,
  certificateSummarySchema,
} from '#spec/certificate.ts'
import {
  execInputSchema,
  execResultSchema,
  leaseInputSchema,
  leaseSchema,
  machineEventSchema,
  machineInputSchema,
  machineSchema,
  machineVersionSchema,
  processSchema,
  textValueSchema,
  verbInputSchema,
} from '#spec/machine.ts'
import { placementsInputSchema, placementsSchema, platformRegionSchema } from '#spec/platform.ts'
import {
  snapshotSchema,
  volumeChangeSchema,
  volumeExtendSchema,
  volumeExtendedSchema,
  volumeInputSchema,
  volumeSchema,
} from '#spec/volume.ts'
import type { Operation, Operations } from './operation.ts'

export const okSchema = z.object({ ok: z.boolean() })
const metadata = z.record(z.string(), z.string())
const shownSecret = secretSchema.extend({ value: z.string().optional() })
const secretQuery = {
  show_secrets: 'true: with the values',
  min_version: 'refuse when the secrets are older than this version',
}

const verb = (name: string, does: string, more: Partial<Operation> = {}): Operation => ({
  id: `Machines_${name}`,
  summary: does,
  leased: true,
  body: verbInputSchema,
  answer: okSchema,
  ...more,
})

const app = '/v1/apps/:app'
const machines = `${app}/machines`
const machine = `${machines}/:id`
const volume = `${app}/volumes/:id`
const certificate = `${app}/certificates/:hostname`

/** Everything below `/v1`. */
export const machinesOperations: Operations = {
  'POST /v1/apps': {
    id: 'Apps_create',
    summary: 'Create an app',
    body: appInputSchema,
    status: 201,
    answer: appSchema,
  },
  'GET /v1/apps': {
    id: 'Apps_list',
    summary: 'List apps',
    query: { org_slug: 'only those of this organization', app_role: 'only those made for this' },
    answer: z.object({ total_apps: z.int(), apps: z.array(appSchema) }),
  },
  [`GET ${app}`]: { id: 'Apps_show', summary: 'Get an app', answer: appSchema },
  [`DELETE ${app}`]: {
    id: 'Apps_delete',
    summary: 'Destroy an app and all that is in it',
    status: 202,
    answer: okSchema,
  },

  [`GET ${machines}`]: {
    id: 'Machines_list',
    summary: 'List the machines of an app',
    query: {
      include_deleted:
        'true: also those that were destroyed in the last 30 days, the newest 10,000',
      region: 'only those of this region',
      state: 'only those in these states, separated by commas',
    },
    answer: z.array(machineSchema),
  },
  [`POST ${machines}`]: {
    id: 'Machines_create',
    summary: 'Create a machine, and start it unless skip_launch is set',
    body: machineInputSchema,
    answer: machineSchema,
  },
  [`GET ${machine}`]: { id: 'Machines_show', summary: 'Get a machine', answer: machineSchema },
  [`POST ${machine}`]: {
    id: 'Machines_update',
    summary: 'Replace the config of a machine',
    leased: true,
    body: machineInputSchema,
    answer: machineSchema,
  },
  [`DELETE ${machine}`]: {
    id: 'Machines_delete',
    summary: 'Destroy a machine',
    leased: true,
    query: { force: 'true: also when it runs; kill means the same' },
    answer: okSchema,
  },
  [`POST ${machine}/start`]: verb('start', 'Start a machine', {
    answer: z.object({
      message: z.string(),
      status: z.string(),
      previous_state: z.string(),
      migrated: z.boolean(),
      new_host: z.string(),
    }),
  }),
  [`POST ${machine}/stop`]: verb('stop', 'Stop a machine'),
  [`POST ${machine}/restart`]: verb('restart', 'Stop a machine and start it again'),
  [`POST ${machine}/suspend`]: verb('suspend', 'Suspend a machine'),
  [`POST ${machine}/signal`]: verb('signal', 'Send a signal to a machine'),
  [`POST ${machine}/cordon`]: verb('cordon', 'Take a machine out of rotation'),
  [`POST ${machine}/uncordon`]: verb('uncordon', 'Put a machine into rotation again'),
  [`POST ${machine}/exec`]: {
    id: 'Machines_exec',
    summary: 'Run a command in a machine',
    leased: true,
    body: execInputSchema,
    answer: execResultSchema,
  },
  [`GET ${machine}/wait`]: {
    id: 'Machines_wait',
    summary: 'Wait until a machine is in a state',
    query: {
      state: 'the state, or several separated by commas; settled means any in which it rests',
      timeout: 'seconds',
      instance_id: 'the version of the machine',
      from_event_id: 'only what happened after this event counts',
    },
    answer: okSchema,
  },
  [`GET ${machine}/events`]: {
    id: 'Machines_list_events',
    summary: 'List the events of a machine, newest first',
    answer: z.array(machineEventSchema),
  },
  [`GET ${machine}/versions`]: {
    id: 'Machines_list_versions',
    summary: 'List the versions of a machine',
    answer: z.array(machineVersionSchema),
  },
  [`GET ${machine}/ps`]: {
    id: 'Machines_list_processes',
    summary: 'List the processes of a machine',
    answer: z.array(processSchema),
  },
  [`GET ${machine}/lease`]: {
    id: 'Machines_show_lease',
    summary: 'Get the lease of a machine, without its nonce',
    answer: z.object({ status: z.string(), data: leaseSchema.omit({ nonce: true }) }),
  },
  [`POST ${machine}/lease`]: {
    id: 'Machines_create_lease',
    summary: 'Take a lease on a machine, or renew the one whose nonce is shown',
    leased: true,
    query: { ttl: 'seconds' },
    body: leaseInputSchema,
    status: 201,
    answer: z.object({ status: z.string(), data: leaseSchema }),
  },
  [`DELETE ${machine}/lease`]: {
    id: 'Machines_release_lease',
    summary: 'Give a lease back',
    leased: true,
    answer: okSchema,
  },
  [`GET ${machine}/metadata`]: {
    id: 'Machines_show_metadata',
    summary: 'Get the metadata of a machine',
    answer: metadata,
  },
  [`GET ${machine}/metadata/:key`]: {
    id: 'Machines_get_metadata_key',
    summary: 'Get one value of the metadata',
    answer: textValueSchema,
  },
  [`POST ${machine}/metadata/:key`]: {
    id: 'Machines_set_metadata_key',
    summary: 'Set one value of the metadata',
    leased: true,
    body: textValueSchema,
    status: 204,
  },
  [`DELETE ${machine}/metadata/:key`]: {
    id: 'Machines_delete_metadata',
    summary: 'Remove one value of the metadata',
    leased: true,
    status: 204,
  },

  [`GET ${app}/volumes`]: {
    id: 'Volumes_list',
    summary: 'List the volumes of an app',
    answer: z.array(volumeSchema),
  },
  [`POST ${app}/volumes`]: {
    id: 'Volumes_create',
    summary: 'Create a volume, empty, from a snapshot or from another volume',
    body: volumeInputSchema,
    answer: volumeSchema,
  },
  [`GET ${volume}`]: { id: 'Volumes_get_by_id', summary: 'Get a volume', answer: volumeSchema },
  [`PUT ${volume}`]: {
    id: 'Volumes_update',
    summary: 'Change how a volume is backed up',
    body: volumeChangeSchema,
    answer: volumeSchema,
  },
  [`DELETE ${volume}`]: { id: 'Volume_delete', summary: 'Destroy a volume', answer: volumeSchema },
  [`PUT ${volume}/extend`]: {
    id: 'Volumes_extend',
    summary: 'Make a volume larger',
    body: volumeExtendSchema,
    answer: volumeExtendedSchema,
  },
  [`GET ${volume}/snapshots`]: {
    id: 'Volumes_list_snapshots',
    summary: 'List the snapshots of a volume',
    answer: z.array(snapshotSchema),
  },
  [`POST ${volume}/snapshots`]: {
    id: 'createVolumeSnapshot',
    summary: 'Take a snapshot of a volume',
    answer: snapshotSchema,
  },

  [`GET ${app}/secrets`]: {
    id: 'Secrets_list',
    summary: 'List the secrets of an app',
    query: secretQuery,
    answer: z.object({ version: z.int(), secrets: z.array(shownSecret) }),
  },
  [`POST ${app}/secrets`]: {
    id: 'Secrets_update',
    summary: 'Set and remove secrets',
    body: secretsInputSchema,
    answer: secretsResultSchema,
  },
  [`GET ${app}/secrets/:name`]: {
    id: 'Secret_get',
    summary: 'Get a secret',
    query: secretQuery,
    answer: shownSecret,
  },
  [`POST ${app}/secrets/:name`]: {
    id: 'Secret_create',
    summary: 'Set a secret',
    body: textValueSchema,
    answer: secretSchema.extend({ version: z.int() }),
  },
  [`DELETE ${app}/secrets/:name`]: {
    id: 'Secret_delete',
    summary: 'Remove a secret',
    answer: z.object({ version: z.int() }),
  },

  [`GET ${app}/ip_assignments`]: {
    id: 'App_IPAssignments_list',
    summary: 'List the addresses of an app',
    answer: z.object({ ips: z.array(ipAssignmentSchema) }),
  },
  [`POST ${app}/ip_assignments`]: {
    id: 'App_IPAssignments_create',
    summary: 'Give an app an address',
    body: ipInputSchema,
    answer: ipAssignmentSchema,
  },
  [`DELETE ${app}/ip_assignments/:ip`]: {
    id: 'App_IPAssignments_delete',
    summary: 'Take an address from an app',
    answer: okSchema,
  },

  [`GET ${app}/certificates`]: {
    id: 'App_Certificates_list',
    summary: 'List the hostnames of an app',
    query: { filter: 'only those that hold this text' },
    answer: z.object({ certificates: z.array(certificateSummarySchema), total_count: z.int() }),
  },
  [`POST ${app}/certificates/acme`]: {
    id: 'App_Certificates_acme_create',
    summary: 'Add a hostname to an app',
    body: certificateInputSchema,
    status: 201,
    answer: certificateDetailSchema,
  },
  [`POST ${app}/certificates/custom`]: {
    id: 'App_Certificates_custom_create',
    summary: 'Bring a certificate',
    notYet: true,
  },
  [`GET ${certificate}`]: {
    id: 'App_Certificates_show',
    summary: 'Get a hostname',
    answer: certificateDetailSchema,
  },
  [`POST ${certificate}/check`]: {
    id: 'App_Certificates_check',
    summary: 'Look again whether a hostname is set up',
    answer: certificateDetailSchema,
  },
  [`DELETE ${certificate}`]: {
    id: 'App_Certificates_delete',
    summary: 'Remove a hostname',
    answer: okSchema,
  },
  [`DELETE ${certificate}/acme`]: {
    id: 'App_Certificates_acme_delete',
    summary: 'Remove the ordered certificate of a hostname',
    answer: okSchema,
  },
  [`DELETE ${certificate}/custom`]: {
    id: 'App_Certificates_custom_delete',
    summary: 'Remove a certificate that was brought',
    notYet: true,
  },

  'GET /v1/platform/regions': {
    id: 'Platform_regions_get',
    summary: 'List the regions of this cloud',
    answer: z.object({ Regions: z.array(platformRegionSchema), Nearest: z.string() }),
  },
  'POST /v1/platform/placements': {
    id: 'Platform_placements_post',
    summary: 'Ask where machines of a size would find room',
    body: placementsInputSchema,
    answer: placementsSchema,
  },
}
