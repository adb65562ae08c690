import { z } from 'zod'
import { buildInputSchema } from '#spec/build.ts'
import {
  clientBuildEndSchema,
  clientBuildInputSchema,
  clientBuildSchema,
  clientReleaseInputSchema,
  organizationSchema,
  releaseViewSchema,
} from '#spec/client-release.ts'
import {
  hostInfoSchema,
  logLineSchema,
  resolveImageSchema,
  resolvedImageSchema,
} from '#spec/host-api.ts'
import { loginInputSchema, redeemInputSchema } from '#spec/login.ts'
import { deployInputSchema, deployProgressSchema, releaseSchema } from '#spec/release.ts'
import type { Operations } from './operation.ts'

const app = '/api/v1/apps/:app'
const organization = '/api/v1/organizations/:slug'
const none = z.object({ data: z.array(z.unknown()) })
const session = z.object({
  id: z.string(),
  access_token: z.string().optional(),
  metadata: z.record(z.string(), z.unknown()),
})
const lineFilter = { instance: 'only this machine', region: 'only this region' }

/** Hangar's own API and the door for clients that drive their deploys themselves: everything below `/api/v1`. */
export const ownOperations: Operations = {
  'GET /api/v1/viewer': {
    id: 'Viewer_show',
    summary: 'Who the token belongs to',
    answer: z.object({
      email: z.string(),
      organizations: z.array(z.object({ slug: z.string(), name: z.string() })),
    }),
  },
  'GET /api/v1/status': {
    id: 'Cloud_status',
    summary: 'The cloud as a whole',
    answer: z.object({
      version: z.string(),
      domain: z.string(),
      http_port: z.int(),
      https_port: z.int(),
      hosts: z.array(hostInfoSchema.extend({ reachable: z.boolean() })),
      apps: z.int(),
    }),
  },
  'POST /api/v1/images/inspect': {
    id: 'Images_inspect',
    summary: 'Resolve an image to its digest',
    body: resolveImageSchema,
    answer: resolvedImageSchema,
  },

  [`GET ${app}/machines/:id/exec`]: {
    id: 'Machines_open',
    summary: 'Run a program in a machine with open streams: a WebSocket, for a terminal or a pipe',
    query: {
      cmd: 'one line, split into words',
      command: 'one word; repeated for each, in place of cmd',
      tty: 'true: with a terminal',
      rows: 'of the terminal',
      columns: 'of the terminal',
      term: 'its kind, as TERM',
      timeout: 'seconds',
    },
    status: 101,
  },
  [`GET ${app}/log-stream`]: {
    id: 'Logs_stream',
    summary: 'Follow the log of an app',
    query: {
      ...lineFilter,
      since: 'after this cursor',
      limit: 'lines',
      follow: 'true: stay and wait for more',
    },
    lines: true,
    answer: logLineSchema,
  },
  [`GET ${app}/logs`]: {
    id: 'Logs_list',
    summary: 'Read the log of an app, piece by piece',
    query: { ...lineFilter, next_token: 'where the last piece ended' },
    answer: z.object({
      data: z.array(
        z.object({
          id: z.string(),
          attributes: z.looseObject({ timestamp: z.string(), message: z.string() }),
        }),
      ),
      meta: z.object({ next_token: z.string() }),
    }),
  },

  [`POST ${app}/builds`]: {
    id: 'Builds_create',
    summary: 'Announce a build',
    body: buildInputSchema,
    status: 201,
    answer: z.looseObject({ id: z.string() }),
  },
  [`PUT ${app}/builds/:id/context`]: {
    id: 'Builds_run',
    summary: 'Send the packed folder of a build and watch it',
    upload: true,
    lines: true,
    answer: z.looseObject({}),
  },
  [`POST ${app}/deploys`]: {
    id: 'Deploys_create',
    summary: 'Deploy a definition and an image',
    body: deployInputSchema,
    status: 201,
    answer: releaseSchema,
  },
  [`POST ${app}/secrets/apply`]: {
    id: 'Secrets_apply',
    summary: 'Bring the secrets that were set to the machines',
    status: 201,
    answer: releaseSchema,
  },
  [`GET ${app}/releases`]: {
    id: 'Releases_list',
    summary: 'List the releases of an app, newest first',
    query: { limit: 'at most this many' },
    answer: z.object({ releases: z.array(releaseViewSchema) }),
  },
  [`GET ${app}/releases/current`]: {
    id: 'Releases_current',
    summary: 'Get the current release of an app',
    answer: releaseViewSchema,
  },
  [`GET ${app}/releases/:id`]: {
    id: 'Releases_show',
    summary: 'Get a release',
    answer: releaseSchema,
  },
  [`GET ${app}/releases/:id/progress`]: {
    id: 'Releases_progress',
    summary: 'Watch a deploy',
    query: { follow: 'true: until its end' },
    lines: true,
    answer: deployProgressSchema,
  },
  [`GET ${app}/definition`]: {
    id: 'Apps_definition',
    summary: 'Get the definition that was deployed last',
    answer: z.record(z.string(), z.unknown()),
  },
  [`POST ${app}/egress_ips/:ip/promote`]: {
    id: 'EgressIPs_promote',
    summary: 'Make an address the one that goes out',
    notYet: true,
  },

  'GET /api/v1/organizations': {
    id: 'Organizations_list',
    summary: 'List organizations',
    answer: z.object({ organizations: z.array(organizationSchema) }),
  },
  [`GET ${organization}`]: {
    id: 'Organizations_show',
    summary: 'Get an organization',
    answer: z.object({ organization: organizationSchema }),
  },
  [`POST ${organization}/builders`]: {
    id: 'Builders_create',
    summary: 'Ask for a managed builder',
    notYet: true,
  },
  [`GET ${organization}/postgres`]: {
    id: 'Postgres_list',
    summary: 'List managed Postgres clusters: none yet',
    answer: none,
  },
  [`GET ${organization}/postgres/deleted`]: {
    id: 'Postgres_list_deleted',
    summary: 'List deleted clusters: none yet',
    answer: none,
  },
  [`GET ${organization}/postgresv2/regions`]: {
    id: 'Postgres_regions',
    summary: 'List regions of managed Postgres: none yet',
    answer: none,
  },

  'POST /api/v1/releases': {
    id: 'ClientReleases_create',
    summary: 'Begin a release that the client drives',
    body: clientReleaseInputSchema,
    status: 201,
    answer: z.object({ release: releaseViewSchema }),
  },
  'PATCH /api/v1/releases/:id': {
    id: 'ClientReleases_update',
    summary: 'Say how a release that the client drives goes',
    body: z.object({ status: z.string() }),
    answer: releaseViewSchema,
  },
  'GET /api/v1/releases/all_current': {
    id: 'ClientReleases_all_current',
    summary: 'When each app was released last',
    answer: z.record(z.string(), z.string()),
  },
  'POST /api/v1/builds': {
    id: 'ClientBuilds_create',
    summary: 'Note a build of the client',
    body: clientBuildInputSchema,
    answer: clientBuildSchema,
  },
  'POST /api/v1/builds/finish': {
    id: 'ClientBuilds_finish',
    summary: 'Note the end of a build of the client',
    body: clientBuildEndSchema,
    answer: clientBuildSchema,
  },
  'POST /api/v1/builds/depot_builder': {
    id: 'DepotBuilders_create',
    summary: 'Ask for a Depot builder',
    notYet: true,
  },

  'POST /api/v1/cli_sessions': {
    id: 'Sessions_create',
    summary: 'Ask for a token that a person allows in a browser',
    open: true,
    body: loginInputSchema,
    status: 201,
    answer: z.object({
      id: z.string(),
      auth_url: z.string(),
      pkce: z.boolean(),
      metadata: z.record(z.string(), z.unknown()),
    }),
  },
  'GET /api/v1/cli_sessions/:id': {
    id: 'Sessions_show',
    summary: 'Fetch the token once it is allowed',
    open: true,
    answer: session,
  },
  'POST /api/v1/cli_sessions/:id/redeem': {
    id: 'Sessions_redeem',
    summary: 'Trade the code for the token',
    open: true,
    body: redeemInputSchema,
    answer: session.extend({ pkce: z.boolean() }),
  },
  'POST /api/v1/sessions': {
    id: 'Sessions_password',
    summary: 'Log in with a password: there are none',
    open: true,
    notYet: true,
  },
}
