/** TOML-7: brings a document in any accepted spelling to the present one. Shapes it does not know pass untouched. */

export type Json = Record<string, unknown>

export const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** A new document; the one given is left as it is. */
export function normalizeDefinition(definition: Json): Json {
  const doc = withoutEmpty(definition) as Json
  return withoutEmpty({
    ...doc,
    env: envOf(doc['env']),
    processes: processesOf(doc['processes']),
    build: buildOf(doc['build']),
    kill_timeout: doc['kill_timeout'] ?? within(doc['experimental'], 'kill_timeout'),
    experimental: doc['experimental'],
    vm: gather(doc, ['compute', 'computes', 'vm']),
    mounts: gather(doc, ['mount', 'mounts']),
    metrics: gather(doc, ['metric', 'metrics']) ?? experimentalMetrics(doc['experimental']),
    compute: undefined,
    computes: undefined,
    mount: undefined,
    metric: undefined,
    services: servicesOf(doc['services']),
    http_service: httpServiceOf(doc['http_service']),
    checks: checksOf(doc['checks']),
    files: listOf(doc['files']),
    restart: listOf(doc['restart']),
    statics: listOf(doc['statics']),
    machine_checks: listOf(doc['machine_checks']),
  }) as Json
}

/** Null means absent wherever a document comes from JSON; so does an empty string where a duration is expected. */
function withoutEmpty(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutEmpty)
  if (!isObject(value)) return value
  const kept = Object.entries(value)
    .filter(([key, item]) => item !== null && item !== undefined && !(item === '' && isTime(key)))
    .map(([key, item]): [string, unknown] => [key, withoutEmpty(item)])
  return Object.fromEntries(kept)
}

const isTime = (key: string) => /(^|_)(interval|timeout|grace_period)$/.test(key)

const within = (value: unknown, key: string): unknown => (isObject(value) ? value[key] : undefined)

/** One section or a list of them, as a list. */
function listOf(value: unknown): unknown {
  return isObject(value) ? [value] : value
}

function gather(doc: Json, names: string[]): unknown {
  const present = names.map((name) => listOf(doc[name])).filter((value) => value !== undefined)
  if (present.length === 0) return undefined
  const wrong = present.find((value) => !Array.isArray(value))
  return wrong ?? present.flat()
}

function envOf(value: unknown): unknown {
  if (!Array.isArray(value) || !value.every(isObject)) return value
  return Object.fromEntries(value.flatMap((item) => Object.entries(item)))
}

/** `[[processes]]` with name and command; an entry without a name says nothing. */
function processesOf(value: unknown): unknown {
  if (Array.isArray(value) && value.every(isObject)) {
    const named = value.filter((item) => 'name' in item)
    if (named.length === 0) return undefined
    return Object.fromEntries(named.map((item) => [String(item['name']), item['command'] ?? '']))
  }
  return isObject(value) && Object.keys(value).length === 0 ? undefined : value
}

function buildOf(value: unknown): unknown {
  if (!isObject(value) || !('build_target' in value)) return value
  const { build_target: target, ...rest } = value
  return { 'build-target': target, ...rest }
}

function experimentalMetrics(value: unknown): unknown {
  const port = within(value, 'metrics_port')
  const path = within(value, 'metrics_path')
  return port === undefined && path === undefined ? undefined : [{ port, path }]
}

function servicesOf(value: unknown): unknown {
  const services = listOf(value)
  if (!Array.isArray(services)) return services
  return services
    .filter((service) => !isObject(service) || Object.keys(service).length > 0)
    .map((service) =>
      isObject(service)
        ? {
            ...service,
            concurrency: concurrencyOf(service['concurrency']),
            ports: listOf(service['ports']),
            tcp_checks: listOf(service['tcp_checks']),
            http_checks: probesOf(service['http_checks']),
            machine_checks: listOf(service['machine_checks']),
          }
        : service,
    )
}

function httpServiceOf(value: unknown): unknown {
  if (!isObject(value)) return value
  return {
    ...value,
    concurrency: concurrencyOf(value['concurrency']),
    checks: probesOf(value['checks']),
    machine_checks: listOf(value['machine_checks']),
  }
}

/** `"soft,hard"`. */
function concurrencyOf(value: unknown): unknown {
  const match = typeof value === 'string' ? /^(\d+)\s*,\s*(\d+)$/.exec(value.trim()) : null
  if (!match) return value
  return { type: 'requests', soft_limit: Number(match[1]), hard_limit: Number(match[2]) }
}

function probesOf(value: unknown): unknown {
  const probes = listOf(value)
  return Array.isArray(probes) ? probes.map(withHeaders) : probes
}

function checksOf(value: unknown): unknown {
  const named = Array.isArray(value)
    ? value.map((item: unknown, index): [string, unknown] => {
        if (!isObject(item)) return [String(index), item]
        const { name, ...check } = item
        return [typeof name === 'string' ? name : String(index), check]
      })
    : isObject(value)
      ? Object.entries(value)
      : undefined
  if (!named) return value
  if (named.length === 0) return undefined
  return Object.fromEntries(named.map(([name, check]) => [name, withHeaders(check)]))
}

/** Headers as `[{name, value}]`. */
function withHeaders(value: unknown): unknown {
  if (!isObject(value)) return value
  const headers = value['headers']
  if (!Array.isArray(headers) || !headers.every((item) => isObject(item) && 'name' in item)) {
    return value
  }
  if (headers.length === 0) return { ...value, headers: undefined }
  const pairs = headers.map((item: Json) => [String(item['name']), item['value'] ?? ''])
  return { ...value, headers: Object.fromEntries(pairs) }
}
