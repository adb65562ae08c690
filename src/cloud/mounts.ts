import { readFileSync } from 'node:fs'
import { run } from '#sys/process.ts'

/** Mount points at or below a folder, deepest first. */
export function mountsBelow(dir: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => (line.split(' ')[4] ?? '').replaceAll('\\040', ' '))
    .filter((point) => point === dir || point.startsWith(`${dir}/`))
    .toSorted((a, b) => b.length - a.length)
}

/** Unmounts what lies below a folder; what is still in use stays. */
export async function unmountBelow(dir: string): Promise<void> {
  for (const point of mountsBelow(dir)) await run('umount', [point])
}
