import { Fault } from '#core/fault.ts'
import type { Io } from './io.ts'

/** Ctrl-C at a question: the command ends quietly. */
export class Cancelled extends Error {
  override name = 'Cancelled'
}

/** Asks yes or no. Where nobody can be asked, a Fault that names the flag to give instead. */
export async function confirm(
  io: Io,
  question: string,
  options: { flag: string; fallback?: boolean },
): Promise<boolean> {
  if (!io.interactive) {
    throw new Fault(
      'bad_request',
      `${question} Nobody can be asked here: give ${options.flag} to say yes`,
    )
  }
  // Only a person needs the prompts; a script does not pay for loading them.
  const clack = await import('@clack/prompts')
  const answer = await clack.confirm({
    message: question,
    initialValue: options.fallback ?? false,
    signal: io.signal,
  })
  if (clack.isCancel(answer)) throw new Cancelled('cancelled')
  return answer
}

/** Asks for one line of text. */
export async function askText(
  io: Io,
  question: string,
  options: { initial: string; check: (value: string) => string | undefined },
): Promise<string> {
  const clack = await import('@clack/prompts')
  const answer = await clack.text({
    message: question,
    initialValue: options.initial,
    validate: (value) => options.check(value ?? ''),
    signal: io.signal,
  })
  if (clack.isCancel(answer)) throw new Cancelled('cancelled')
  return answer
}
