import pc from 'picocolors'

/** One line a step, with its seconds. */
export interface Progress {
  done(what: string, ms: number, note?: string): void
  note(text: string): void
  warn(text: string): void
}

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`.padStart(7)

export function terminalProgress(out: NodeJS.WritableStream = process.stdout): Progress {
  return {
    done: (what, ms, note) =>
      out.write(
        `${pc.green('✓')} ${what.padEnd(24)}${seconds(ms)}${note ? `  ${pc.dim(note)}` : ''}\n`,
      ),
    note: (text) => out.write(`${text}\n`),
    warn: (text) => out.write(`${pc.yellow('!')} ${text}\n`),
  }
}
