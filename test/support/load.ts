import http from 'node:http'

export interface LoadResult {
  ok: number
  /** What went wrong → how often: a status other than 2xx, or a socket error's code. */
  bad: Record<string, number>
  /** Distinct `version` fields seen in the answers. */
  versions: Set<string>
}

export interface LoadOptions {
  port: number
  host: string
  connections: number
  /** Ends the load; requests in flight are finished. */
  until: AbortSignal
}

function once(
  options: LoadOptions,
  agent: http.Agent,
  method: string,
): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const request = http.request(
      {
        host: '127.0.0.1',
        port: options.port,
        path: '/',
        method,
        agent,
        headers: { host: options.host },
        timeout: 90_000,
      },
      (response) => {
        let body = ''
        response.setEncoding('utf8')
        response.on('data', (chunk: string) => (body += chunk))
        response.on('end', () => resolve({ status: response.statusCode ?? 0, body }))
        response.on('error', reject)
      },
    )
    request.on('error', reject)
    request.on('timeout', () => request.destroy(new Error('no answer in 90 s')))
    request.end(method === 'POST' ? 'x'.repeat(2_000) : undefined)
  })
}

/** Requests over 127.0.0.1 until told to stop: half of the connections kept alive, half closed each time, GET and POST in turn. */
export async function load(options: LoadOptions): Promise<LoadResult> {
  const result: LoadResult = { ok: 0, bad: {}, versions: new Set() }
  const count = (what: string) => (result.bad[what] = (result.bad[what] ?? 0) + 1)
  const worker = async (index: number) => {
    const agent = new http.Agent({ keepAlive: index % 2 === 0, maxSockets: 1 })
    for (let turn = 0; !options.until.aborted; turn++) {
      const method = turn % 2 === 0 ? 'GET' : 'POST'
      try {
        const answer = await once(options, agent, method)
        if (answer.status < 200 || answer.status > 299) count(`${method} ${answer.status}`)
        else {
          result.ok++
          const version = /"version":"([^"]*)"/.exec(answer.body)?.[1]
          if (version !== undefined) result.versions.add(version)
        }
      } catch (error) {
        count(`${method} ${(error as NodeJS.ErrnoException).code ?? String(error)}`)
      }
    }
    agent.destroy()
  }
  await Promise.all(Array.from({ length: options.connections }, (_, i) => worker(i)))
  return result
}
