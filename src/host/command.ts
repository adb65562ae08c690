import { Fault } from '#core/fault.ts'
import type { MachineConfig } from '#spec/machine-config.ts'

export interface ImageCommand {
  entrypoint: readonly string[]
  cmd: readonly string[]
}

/**
 * MCH-67: `init.exec` replaces everything; otherwise entrypoint then cmd, each from the config or else from the image.
 * @throws Fault `invalid` when nothing is left to run
 */
export function commandOf(config: MachineConfig, image: ImageCommand): string[] {
  const { init } = config
  if (init?.exec?.length) return [...init.exec]
  const entrypoint = init?.entrypoint?.length ? init.entrypoint : image.entrypoint
  // As Docker does: an entrypoint of one's own leaves the image's command behind.
  const imageCmd = init?.entrypoint?.length ? [] : image.cmd
  const argv = [...entrypoint, ...(init?.cmd?.length ? init.cmd : imageCmd)]
  if (argv.length === 0) {
    throw new Fault(
      'invalid',
      `the image ${config.image} names no command; give it an ENTRYPOINT or CMD, or set a process command`,
    )
  }
  return argv
}

/** Splits a command line as a shell would split plain words: blanks, quotes and backslashes, nothing else. */
export function splitWords(text: string): string[] {
  const words: string[] = []
  let word: string | undefined
  let quote = ''
  for (let i = 0; i < text.length; i++) {
    const char = text[i] as string
    if (quote) {
      const escapes = char === '\\' && quote === '"' && /["\\$`]/.test(text[i + 1] ?? '')
      if (char === quote) quote = ''
      else word = `${word ?? ''}${escapes ? text[++i] : char}`
    } else if (char === '"' || char === "'") {
      quote = char
      word ??= ''
    } else if (char === '\\' && i + 1 < text.length) {
      word = (word ?? '') + text[++i]
    } else if (/\s/.test(char)) {
      if (word !== undefined) words.push(word)
      word = undefined
    } else {
      word = (word ?? '') + char
    }
  }
  if (quote) throw new Fault('invalid', `the command has an open ${quote} quote: ${text}`)
  if (word !== undefined) words.push(word)
  return words
}
