import { z } from 'zod'
import { faultCodes } from '#core/fault.ts'
import { ipAssignmentSchema } from '#spec/address.ts'
import { appSchema, secretSchema } from '#spec/app.ts'
import { certificateDetailSchema, certificateSummarySchema } from '#spec/certificate.ts'
import { organizationSchema, releaseViewSchema } from '#spec/client-release.ts'
import { logLineSchema, resolvedImageSchema } from '#spec/host-api.ts'
import { guestSchema, machineConfigSchema } from '#spec/machine-config.ts'
import { leaseNonceHeader, leaseSchema, machineEventSchema, machineSchema } from '#spec/machine.ts'
import { deployProgressSchema, releaseSchema } from '#spec/release.ts'
import { snapshotSchema, volumeSchema } from '#spec/volume.ts'
import manifest from '../../../package.json' with { type: 'json' }
import { machinesOperations, okSchema } from './machines-operations.ts'
import type { Operation, Operations } from './operation.ts'
import { ownOperations } from './own-operations.ts'

export const operations: Operations = { ...machinesOperations, ...ownOperations }

/** MCH-2: every answer that is no success. */
export const errorSchema = z.object({
  error: z.string(),
  status: z.enum(faultCodes),
  details: z.record(z.string(), z.unknown()).optional(),
})

/** Shapes with a name of their own; every other one is named by its operation. */
const named: Record<string, z.ZodType> = {
  App: appSchema,
  CertificateDetail: certificateDetailSchema,
  CertificateSummary: certificateSummarySchema,
  DeployProgress: deployProgressSchema,
  Error: errorSchema,
  Guest: guestSchema,
  IPAssignment: ipAssignmentSchema,
  Image: resolvedImageSchema,
  Lease: leaseSchema,
  LogLine: logLineSchema,
  Machine: machineSchema,
  MachineConfig: machineConfigSchema,
  MachineEvent: machineEventSchema,
  Ok: okSchema,
  Organization: organizationSchema,
  Release: releaseSchema,
  ReleaseView: releaseViewSchema,
  Secret: secretSchema,
  Snapshot: snapshotSchema,
  Volume: volumeSchema,
}

type Json = Record<string, unknown>
const reference = (name: string) => ({ $ref: `#/components/schemas/${name}` })

/** The OpenAPI 3.1 document of the REST doors, made from the schemas that requests are checked by. */
export function openApiDocument(): Json {
  const names = new Map(Object.entries(named).map(([name, schema]) => [schema, name]))
  for (const { id, body, answer } of Object.values(operations)) {
    if (body && !names.has(body)) names.set(body, `${id}_request`)
    if (answer && !names.has(answer)) names.set(answer, `${id}_response`)
  }
  const paths: Record<string, Json> = {}
  for (const [route, operation] of Object.entries(operations)) {
    const [method = '', path = ''] = route.split(' ')
    const item = (paths[path.replaceAll(/:(\w+)/g, '{$1}')] ??= {})
    item[method.toLowerCase()] = describe(path, operation, names)
  }
  return {
    openapi: '3.1.1',
    info: {
      title: 'Hangar',
      version: manifest.version,
      description:
        'The Machines API, the API of client-driven releases, and Hangar’s own. Every answer carries fly-request-id.',
      license: { name: manifest.license, identifier: manifest.license },
    },
    servers: [{ url: '/' }],
    security: [{ bearer: [] }],
    paths,
    components: {
      securitySchemes: { bearer: { type: 'http', scheme: 'bearer' } },
      responses: { Error: { description: 'What happened, and what to do', ...json('Error') } },
      schemas: schemasOf(names),
    },
  }
}

const json = (name: string, type = 'application/json') => ({
  content: { [type]: { schema: reference(name) } },
})

// Makers of clients want a schema, also where there is nothing to say about the bytes.
const upload = { content: { 'application/x-tar': { schema: { type: 'string' } } } }

function describe(path: string, operation: Operation, names: Map<z.ZodType, string>): Json {
  const { id, summary, query = {}, body, answer, notYet } = operation
  const nameOf = (schema: z.ZodType) => names.get(schema) ?? 'Error'
  const text = { schema: { type: 'string' } }
  const parameters = [
    ...[...path.matchAll(/:(\w+)/g)].map(([, name]) => ({
      name,
      in: 'path',
      required: true,
      ...text,
    })),
    ...Object.entries(query).map(([name, description]) => ({
      name,
      in: 'query',
      description,
      ...text,
    })),
    ...(operation.leased ? [{ name: leaseNonceHeader, in: 'header', ...text }] : []),
  ]
  const type = operation.lines ? 'application/x-ndjson' : 'application/json'
  const success = { description: 'Done', ...(answer ? json(nameOf(answer), type) : {}) }
  return {
    operationId: id,
    summary,
    tags: [id.split('_')[0]?.replace(/^createVolumeSnapshot$/, 'Volumes')],
    ...(operation.open ? { security: [] } : {}),
    ...(parameters.length > 0 ? { parameters } : {}),
    ...(body ? { requestBody: json(nameOf(body)) } : {}),
    ...(operation.upload ? { requestBody: upload } : {}),
    responses: {
      ...(notYet ? {} : { [operation.status ?? 200]: success }),
      default: { $ref: '#/components/responses/Error' },
    },
  }
}

function schemasOf(names: ReadonlyMap<z.ZodType, string>): Json {
  const registry = z.registry<{ id: string }>()
  for (const [schema, id] of names) registry.add(schema, { id })
  const { schemas } = z.toJSONSchema(registry, {
    uri: (id) => reference(id).$ref,
    // As it goes over the wire; what a schema does not name is let through.
    io: 'input',
    unrepresentable: 'any',
  })
  const own = ([key]: [string, unknown]) => key !== '$schema' && key !== '$id'
  return Object.fromEntries(
    Object.entries(schemas).map(([name, schema]) => [
      name,
      Object.fromEntries(Object.entries(schema).filter(own)),
    ]),
  )
}
