import { randomInt } from 'node:crypto'

/** Between half of a wait and all of it, so that those who lost a connection together do not come back together. */
export const withJitter = (ms: number): number =>
  Math.round(ms / 2) + randomInt(Math.ceil(ms / 2) + 1)
