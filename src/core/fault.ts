/**
 * The one error class. Every fault has a code from the table below; the code fixes the HTTP status and whose fault it
 * is. A message says what happened, to which thing, and what to do next. Expected outcomes are return values: a Fault
 * is thrown only when the caller cannot go on.
 */

export type Whose = 'user' | 'system' | 'upstream'

const table = {
  bad_request: { status: 400, whose: 'user' },
  unauthorized: { status: 401, whose: 'user' },
  forbidden: { status: 403, whose: 'user' },
  not_found: { status: 404, whose: 'user' },
  wait_timeout: { status: 408, whose: 'user' },
  conflict: { status: 409, whose: 'user' },
  lease_held: { status: 409, whose: 'user' },
  insufficient_capacity: { status: 412, whose: 'system' },
  precondition_failed: { status: 412, whose: 'user' },
  too_large: { status: 413, whose: 'user' },
  invalid: { status: 422, whose: 'user' },
  name_taken: { status: 422, whose: 'user' },
  limit_reached: { status: 429, whose: 'user' },
  internal: { status: 500, whose: 'system' },
  not_available_yet: { status: 501, whose: 'system' },
  image_unavailable: { status: 422, whose: 'upstream' },
  build_failed: { status: 422, whose: 'user' },
  native_failed: { status: 500, whose: 'system' },
  host_unreachable: { status: 504, whose: 'system' },
  timeout: { status: 504, whose: 'system' },
} as const satisfies Record<string, { status: number; whose: Whose }>

export type FaultCode = keyof typeof table
export const faultCodes = Object.keys(table) as FaultCode[]

export class Fault extends Error {
  readonly code: FaultCode
  readonly details: Record<string, unknown> | undefined

  constructor(
    code: FaultCode,
    message: string,
    options: { cause?: unknown; details?: Record<string, unknown> } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'Fault'
    this.code = code
    this.details = options.details
  }

  /** The HTTP status an API answers with. */
  get status(): number {
    return table[this.code].status
  }

  get whose(): Whose {
    return table[this.code].whose
  }
}

export function isFault(error: unknown, code?: FaultCode): error is Fault {
  return error instanceof Fault && (code === undefined || error.code === code)
}

/** The text of anything thrown, for a message that a person reads. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
