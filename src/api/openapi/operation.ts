import type { z } from 'zod'

/** One REST door as the document describes it. The key of its table is the route: `GET /v1/apps/:app`. */
export interface Operation {
  /** Fly's own name where Fly has the operation. */
  id: string
  summary: string
  /** What the query may hold, and what it means. */
  query?: Readonly<Record<string, string>>
  /** Read from `fly-machine-lease-nonce`: a machine under a lease is changed only with its nonce. */
  leased?: true
  body?: z.ZodType
  /** An upload, streamed. */
  upload?: true
  /** Of the answer; 200 when absent. */
  status?: number
  /** Undefined: no body. */
  answer?: z.ZodType
  /** The answer is a stream of JSON lines, each of this shape. */
  lines?: true
  /** Needs no token. */
  open?: true
  /** There only to say that the thing is not available yet. */
  notYet?: true
}

export type Operations = Readonly<Record<string, Operation>>
