import type { Change } from './reconcile.ts'
import type { ProxyPaths } from './config.ts'

/** How HAProxy is told each change, and how a good answer looks. */
export interface Command {
  text: string
  good: (answer: string) => boolean
}

const silent = (answer: string) => answer.trim() === ''

/**
 * Without `pool-purge-delay` and `pool-max-conn` HAProxy 2.6 never reuses a connection to a server added at run time.
 * `observe layer4 error-limit 1 on-error mark-down` with health checks "enabled" but practically never sent makes a
 * refused connection take the server out at once, so that the next try goes elsewhere or to the waker.
 */
const serverOptions =
  'pool-purge-delay 5s pool-max-conn -1 check inter 3600s observe layer4 error-limit 1 on-error mark-down'

export function commandsFor(change: Change, paths: ProxyPaths): Command[] {
  switch (change.do) {
    case 'own':
      return [{ text: `add map ${paths.ownersMap} ${change.slot} ${change.pool}`, good: silent }]
    case 'disown':
      return [{ text: `del map ${paths.ownersMap} ${change.slot}`, good: silent }]
    case 'route': {
      const verb = change.replaces ? 'set' : 'add'
      const map = change.door === 'http' ? paths.httpMap : paths.httpsMap
      return [{ text: `${verb} map ${map} ${change.host} ${change.to}`, good: silent }]
    }
    case 'unroute': {
      const map = change.door === 'http' ? paths.httpMap : paths.httpsMap
      return [{ text: `del map ${map} ${change.host}`, good: silent }]
    }
    case 'add': {
      const { name, address, weight, maxconn } = change.server
      const at = `${change.slot}/${name}`
      const limit = maxconn > 0 ? ` maxconn ${maxconn}` : ''
      return [
        {
          text: `add server ${at} ${address} weight ${weight}${limit} ${serverOptions}`,
          good: (answer) => answer.includes('New server registered'),
        },
        { text: `enable health ${at}`, good: silent },
        { text: `enable server ${at}`, good: silent },
      ]
    }
    case 'leave':
      return [{ text: `set server ${change.slot}/${change.server.name} state drain`, good: silent }]
    default:
      return [
        {
          text: `set server ${change.slot}/${change.server.name} weight ${change.weight}`,
          good: silent,
        },
      ]
  }
}
