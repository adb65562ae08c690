import type { Home } from './home.ts'

export async function doctor(options: { home: Home; json: boolean }): Promise<number> {
  return options.json ? 0 : 0
}
