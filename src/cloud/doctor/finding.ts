/** One line of the doctor's report. */
export interface Finding {
  name: string
  state: 'ok' | 'warn' | 'fail'
  found: string
  /** What the user goes without. */
  cost?: string
  /** What to do about it. */
  remedy?: string
}

export const ok = (name: string, found: string): Finding => ({ name, state: 'ok', found })

export const warn = (name: string, found: string, cost: string, remedy: string): Finding => ({
  name,
  state: 'warn',
  found,
  cost,
  remedy,
})

export const fail = (name: string, found: string, cost: string, remedy: string): Finding => ({
  name,
  state: 'fail',
  found,
  cost,
  remedy,
})
