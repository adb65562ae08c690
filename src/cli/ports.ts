import { Fault } from '#core/fault.ts'
import { handlerSchema, type Service, type ServicePort } from '#spec/machine-config.ts'

/**
 * Services from `--port`: `port[:machinePort][/protocol[:handler[:handler…]]]`, such as `443:8080/tcp:tls:http`. Ports of
 * one protocol and machine port become one service.
 */
export function servicesOfPorts(
  specs: readonly string[],
  base: Pick<Service, 'autostart' | 'autostop'> = {},
): Service[] {
  const services = new Map<string, Service & { ports: ServicePort[] }>()
  for (const spec of specs) {
    const match = /^(\d+)(?::(\d+))?(?:\/(tcp|udp)((?::[a-z_]+)*))?$/i.exec(spec)
    if (!match) {
      throw new Fault(
        'bad_request',
        `--port "${spec}" is not port[:machinePort][/protocol[:handler…]]; for example 80:8080/tcp:http`,
      )
    }
    const port = portNumber(match[1] as string, spec)
    const internal = portNumber(match[2] ?? (match[1] as string), spec)
    const protocol = match[3]?.toLowerCase() === 'udp' ? 'udp' : 'tcp'
    const handlers = (match[4] ?? '')
      .split(':')
      .filter(Boolean)
      .map((name) => handler(name, spec))
    const key = `${protocol}:${internal}`
    const service = services.get(key) ?? {
      protocol,
      internal_port: internal,
      ...base,
      ports: [],
    }
    service.ports.push({ port, ...(handlers.length > 0 ? { handlers } : {}) })
    services.set(key, service)
  }
  return [...services.values()]
}

function portNumber(text: string, spec: string): number {
  const port = Number(text)
  if (port >= 1 && port <= 65_535) return port
  throw new Fault('bad_request', `--port "${spec}": ${text} is no port; use 1 to 65535`)
}

function handler(name: string, spec: string): NonNullable<ServicePort['handlers']>[number] {
  const known = handlerSchema.safeParse(name.toLowerCase())
  if (known.success) return known.data
  throw new Fault(
    'bad_request',
    `--port "${spec}": unknown handler "${name}"; use ${handlerSchema.options.join(', ')}`,
  )
}
