import { connect, type NatsConnection } from '@nats-io/transport-node'
import { jetstream } from '@nats-io/jetstream'
import { Kvm, type KV } from '@nats-io/kv'
import type { Logger } from '#sys/log.ts'
import { messageOf } from '#core/fault.ts'

/** The bus, reached or not. A role starts and works without it; everything here waits or drops, nothing throws. */
export interface Bus {
  /** The connection once there is one. */
  connected: Promise<NatsConnection>
  current(): NatsConnection | undefined
  /** The bucket of a region, made when it does not exist (or was deleted). Rejects while the bus is down. */
  bucket(region: string): Promise<KV>
  close(): Promise<void>
}

export const bucketName = (region: string): string => `roster_${region}`

export function openBus(options: { natsUrl: string; key: string; name: string; log: Logger }): Bus {
  const { log } = options
  let current: NatsConnection | undefined
  let closed = false

  const connected = connect({
    servers: options.natsUrl,
    token: options.key,
    name: options.name,
    waitOnFirstConnect: true,
    maxReconnectAttempts: -1,
    reconnectTimeWait: 100,
    reconnectJitter: 400,
    pingInterval: 2_000,
    maxPingOut: 2,
    ignoreAuthErrorAbort: true,
  }).then((connection) => {
    current = connection
    if (closed) void connection.close()
    else void reportStatus(connection)
    return connection
  })
  connected.catch((error: unknown) => {
    if (!closed) log.error({ error: messageOf(error) }, 'the bus cannot be used')
  })

  async function reportStatus(connection: NatsConnection): Promise<void> {
    for await (const status of connection.status()) {
      if (status.type === 'disconnect')
        log.warn('the bus is gone; working from memory until it is back')
      if (status.type === 'reconnect') log.info('the bus is back')
    }
  }

  return {
    connected,
    current: () => current,
    async bucket(region) {
      if (!current) throw new Error('the bus was not reached yet')
      const kvm = new Kvm(jetstream(current, { timeout: 1_000 }))
      return await kvm.create(bucketName(region), { history: 1 })
    },
    async close() {
      closed = true
      await current?.close()
    },
  }
}
