import { Fault, faultCodes, type FaultCode } from '#core/fault.ts'
import type { Api } from './api.ts'

interface Answer<T> {
  data: T | null
  errors?: { message: string; extensions?: { code?: string } }[]
}

/** One GraphQL operation; its first error comes back as the Fault it was. */
export async function askGraph<T>(
  api: Api,
  query: string,
  variables: Record<string, unknown> = {},
): Promise<T> {
  const { data, errors } = await api.post<Answer<T>>('/graphql', { query, variables })
  const [error] = errors ?? []
  if (error) throw new Fault(codeOf(error.extensions?.code), error.message)
  return data as T
}

function codeOf(text = ''): FaultCode {
  const code = text.toLowerCase() as FaultCode
  return faultCodes.includes(code) ? code : 'internal'
}
