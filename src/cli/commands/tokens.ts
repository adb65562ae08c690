import { Fault, messageOf } from '#core/fault.ts'
import { chooseOrg, getApp } from '../apps.ts'
import type { Call, Command, Flag } from '../command.ts'
import { aboutApp, appFlag, jsonFlag, orgFlag } from '../flags.ts'
import { askGraph } from '../graph.ts'
import { complain, say, sayJson } from '../io.ts'
import { sayTable } from '../table.ts'

interface Token {
  id: string
  name: string
  expiresAt: string
  revokedAt: string | null
  user: { email: string }
}

const create = `mutation ($input: CreateLimitedAccessTokenInput!) {
  createLimitedAccessToken(input: $input) { limitedAccessToken { tokenHeader } }
}`

/** Prints the new token, which is shown this once. */
async function make(
  { io, flags, api }: Call,
  scope: { profile: string; organizationId: string; profileParams?: object },
  nameDefault: string,
): Promise<number> {
  const input = {
    ...scope,
    name: flags.text('name') ?? nameDefault,
    expiry: flags.text('expiry') ?? null,
  }
  const { createLimitedAccessToken } = await askGraph<{
    createLimitedAccessToken: { limitedAccessToken: { tokenHeader: string } }
  }>(api(), create, { input })
  const token = createLimitedAccessToken.limitedAccessToken.tokenHeader
  if (flags.on('json')) sayJson(io, { token })
  else say(io, token)
  return 0
}

/** The id of the organization that the argument, `--org` or FLY_ORG names, or of the only one. */
async function orgId({ io, flags, args, api }: Call): Promise<string> {
  const wanted = args[0] ?? flags.text('org') ?? io.env['FLY_ORG']
  const { slug } = await chooseOrg(api(), wanted)
  const { organization } = await askGraph<{ organization: { id: string } }>(
    api(),
    'query ($slug: String) { organization(slug: $slug) { id } }',
    { slug },
  )
  return organization.id
}

async function appScope(call: Call, name: string, profile: string) {
  const app = await getApp(call.api(), name)
  return { profile, organizationId: app.organization.slug, profileParams: { app_id: app.id } }
}

const runDeploy = async (call: Call): Promise<number> =>
  make(call, await appScope(call, await call.appName(), 'deploy'), 'deploy token')

const runOrg = async (call: Call): Promise<number> =>
  make(call, { profile: 'org', organizationId: await orgId(call) }, 'organization token')

async function runReadonly(call: Call): Promise<number> {
  const app = call.flags.text('app')
  const scope = app
    ? await appScope(call, app, 'readonly')
    : { profile: 'readonly', organizationId: await orgId(call) }
  return make(call, scope, 'read-only token')
}

const tokenFields = 'limitedAccessTokens { nodes { id name expiresAt revokedAt user { email } } }'

interface Listed {
  owner: { limitedAccessTokens: { nodes: Token[] } }
}

async function runList(call: Call): Promise<number> {
  const { io, flags, api } = call
  const scope = flags.text('scope') ?? (flags.given('org') && !flags.given('app') ? 'org' : 'app')
  if (scope !== 'app' && scope !== 'org') {
    throw new Fault('bad_request', `--scope must be app or org, not "${scope}"`)
  }
  const { owner } =
    scope === 'app'
      ? await askGraph<Listed>(
          api(),
          `query ($name: String) { owner: app(name: $name) { ${tokenFields} } }`,
          { name: await call.appName() },
        )
      : await askGraph<Listed>(
          api(),
          `query ($id: ID) { owner: organization(id: $id) { ${tokenFields} } }`,
          { id: await orgId(call) },
        )
  const tokens = owner.limitedAccessTokens.nodes
  if (flags.on('json')) sayJson(io, tokens)
  else {
    sayTable(io, {
      headers: ['ID', 'Name', 'Created By', 'Expires At', 'Revoked At'],
      rows: tokens.map((token) => [
        token.id,
        token.name,
        token.user.email,
        token.expiresAt,
        token.revokedAt ?? '',
      ]),
    })
  }
  return 0
}

const revokeToken =
  'mutation ($id: ID!) { deleteLimitedAccessToken(input: { id: $id }) { madeRevoked } }'

interface Revoked {
  deleteLimitedAccessToken: { madeRevoked: number }
}

/** Goes on after one that cannot be revoked: the others must not stay good for its sake. */
async function runRevoke({ io, args, api }: Call): Promise<number> {
  let revoked = 0
  for (const id of args) {
    try {
      const { deleteLimitedAccessToken } = await askGraph<Revoked>(api(), revokeToken, { id })
      const made = deleteLimitedAccessToken.madeRevoked
      say(io, made > 0 ? `Revoked ${id} and ${made} that it had made` : `Revoked ${id}`)
      revoked++
    } catch (error) {
      complain(io, `failed to revoke token ${id}: ${messageOf(error)}`)
    }
  }
  say(io, `${revoked} tokens revoked`)
  return revoked === args.length ? 0 : 1
}

const tokenFlags: readonly Flag[] = [
  { name: 'name', short: 'n', kind: 'text', value: 'NAME', summary: 'Token name' },
  {
    name: 'expiry',
    short: 'x',
    kind: 'text',
    value: 'DURATION',
    summary: 'How long the token is good, such as 24h; 20 years by default',
  },
  jsonFlag,
]
const ofOrg: Flag = { ...orgFlag, summary: 'The organization of the token' }

const createCommand: Command = {
  name: 'create',
  summary: 'Create tokens',
  commands: [
    {
      name: 'deploy',
      summary: 'A token that manages one app',
      flags: [...aboutApp, ...tokenFlags],
      run: runDeploy,
    },
    {
      name: 'org',
      summary: 'A token that manages one organization and its apps',
      args: '[ORG]',
      argsMax: 1,
      flags: [ofOrg, ...tokenFlags],
      run: runOrg,
    },
    {
      name: 'readonly',
      summary: 'A token that looks at one organization, or with -a at one app, and changes nothing',
      args: '[ORG]',
      argsMax: 1,
      flags: [appFlag, ofOrg, ...tokenFlags],
      run: runReadonly,
    },
  ],
}

export const tokens: Command = {
  name: 'tokens',
  aliases: ['token'],
  summary: 'Manage API tokens',
  commands: [
    createCommand,
    {
      name: 'list',
      aliases: ['ls'],
      summary: 'List tokens of an app, or of an organization',
      flags: [
        ...aboutApp,
        ofOrg,
        { name: 'scope', short: 's', kind: 'text', value: 'SCOPE', summary: 'app or org' },
        jsonFlag,
      ],
      run: runList,
    },
    {
      name: 'revoke',
      summary: 'Revoke tokens at once',
      args: 'ID…',
      argsMin: 1,
      run: runRevoke,
    },
  ],
}
