import { spawnSync } from 'node:child_process'
import type { ReadStream } from 'node:tty'

/** Each key comes as it is, and what is written is shown as it is, until what this returns is called or the process ends. */
export function rawTerminal(terminal: ReadStream): () => void {
  terminal.setRawMode(true)
  // Node leaves it making two characters of each end of line: a screen editor means one of them alone.
  spawnSync('stty', ['-opost'], { stdio: ['inherit', 'ignore', 'ignore'] })
  return () => void terminal.setRawMode(false)
}
