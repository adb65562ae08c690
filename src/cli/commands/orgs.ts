import { Fault } from '#core/fault.ts'
import type { Call, Command } from '../command.ts'
import { jsonFlag } from '../flags.ts'
import { askGraph } from '../graph.ts'
import { say, sayJson } from '../io.ts'
import { sayFields, sayTable } from '../table.ts'

interface Org {
  id: string
  name: string
  slug: string
  type: string
}

interface OrgDetails extends Org {
  viewerRole: string
  members: { edges: { node: { name: string; email: string }; role: string }[] }
}

const basics = 'id name slug type'

async function runList({ io, flags, api }: Call): Promise<number> {
  const { organizations } = await askGraph<{ organizations: { nodes: Org[] } }>(
    api(),
    `{ organizations { nodes { ${basics} } } }`,
  )
  const orgs = organizations.nodes
  // As flyctl prints it: the name by the slug.
  if (flags.on('json')) sayJson(io, Object.fromEntries(orgs.map(({ slug, name }) => [slug, name])))
  else {
    sayTable(io, {
      headers: ['Name', 'Slug', 'Type'],
      rows: orgs.map(({ name, slug, type }) => [name, slug, type]),
    })
  }
  return 0
}

async function runCreate({ io, flags, args, api }: Call): Promise<number> {
  const { createOrganization } = await askGraph<{ createOrganization: { organization: Org } }>(
    api(),
    `mutation ($name: String!) { createOrganization(input: { name: $name }) { organization { ${basics} } } }`,
    { name: args[0] },
  )
  const { organization } = createOrganization
  if (flags.on('json')) sayJson(io, organization)
  else say(io, `New organization created: ${organization.name} (${organization.slug})`)
  return 0
}

async function runShow({ io, flags, args, api }: Call): Promise<number> {
  const slug = args[0] ?? io.env['FLY_ORG'] ?? ''
  if (slug === '') {
    throw new Fault(
      'bad_request',
      'which organization? give its slug; see them with: hangar orgs list',
    )
  }
  const { organization } = await askGraph<{ organization: OrgDetails }>(
    api(),
    `query ($slug: String) { organization(slug: $slug) { ${basics} viewerRole members { edges { node { name email } role } } } }`,
    { slug },
  )
  if (flags.on('json')) {
    sayJson(io, organization)
    return 0
  }
  const { name, type, viewerRole, members } = organization
  sayFields(io, {
    title: 'Organization',
    fields: [
      ['Name', name],
      ['Slug', organization.slug],
      ['Type', type],
      ['Your role', viewerRole],
    ],
  })
  sayTable(io, {
    title: 'Members',
    headers: ['Name', 'Email', 'Role'],
    rows: members.edges.map(({ node, role }) => [node.name, node.email, role]),
  })
  return 0
}

export const orgs: Command = {
  name: 'orgs',
  aliases: ['org', 'organizations'],
  summary: 'Manage organizations',
  commands: [
    {
      name: 'list',
      aliases: ['ls'],
      summary: 'List organizations',
      flags: [jsonFlag],
      run: runList,
    },
    {
      name: 'create',
      summary: 'Create an organization',
      args: 'NAME',
      argsMin: 1,
      argsMax: 1,
      flags: [jsonFlag],
      run: runCreate,
    },
    {
      name: 'show',
      summary: 'Show an organization and its members',
      args: '[SLUG]',
      argsMax: 1,
      flags: [jsonFlag],
      run: runShow,
    },
  ],
}
