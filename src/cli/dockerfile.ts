import { statSync } from 'node:fs'
import { join } from 'node:path'
import { readTextFile } from '#sys/files.ts'

/** TOML-21: the Dockerfile of a folder. */
export function findDockerfile(folder: string): string | undefined {
  return ['Dockerfile', 'dockerfile']
    .map((name) => join(folder, name))
    .find((path) => statSync(path, { throwIfNoEntry: false })?.isFile())
}

interface Stage {
  name: string | undefined
  base: string
  exposed: number[]
}

/**
 * The TCP ports that the last stage (or `target`) of a Dockerfile exposes, those of the stages it is built from
 * included, in the order written. Variables with a known default are filled in; what stays unknown is left out.
 */
export function exposedPorts(text: string, target?: string): number[] {
  const stages: Stage[] = []
  const variables = new Map<string, string>()
  for (const { keyword, rest } of instructions(text)) {
    const words = splitWords(fillIn(rest, variables))
    if (keyword === 'ARG' || keyword === 'ENV') remember(words, variables)
    if (keyword === 'FROM') {
      const named = words.filter((word) => !word.startsWith('--'))
      const as = named.findIndex((word) => word.toUpperCase() === 'AS')
      stages.push({
        base: named[0] ?? '',
        name: as > 0 ? named[as + 1]?.toLowerCase() : undefined,
        exposed: [],
      })
    }
    if (keyword === 'EXPOSE') stages.at(-1)?.exposed.push(...words.flatMap(tcpPorts))
  }
  const chosen = target
    ? stages.findLast(({ name }) => name === target.toLowerCase())
    : stages.at(-1)
  return [...new Set(portsOf(chosen, stages))]
}

export function exposedPortsOfFile(path: string, target?: string): number[] {
  return exposedPorts(readTextFile(path) ?? '', target)
}

/** The ports of a stage and, when it builds on an earlier one, of that. */
function portsOf(stage: Stage | undefined, stages: readonly Stage[]): number[] {
  if (!stage) return []
  const before = stages.slice(0, stages.indexOf(stage))
  const base = before.findLast(
    ({ name }) => name !== undefined && name === stage.base.toLowerCase(),
  )
  return [...stage.exposed, ...portsOf(base, before)]
}

/** Instructions with continued lines joined; comments and heredoc bodies are skipped. */
function instructions(text: string): { keyword: string; rest: string }[] {
  const escape = /^\s*#\s*escape\s*=\s*`/im.test(text.split('\n', 3).join('\n')) ? '`' : '\\'
  const out: { keyword: string; rest: string }[] = []
  const lines = text.split(/\r?\n/)
  for (let i = 0; i < lines.length; i++) {
    let line = (lines[i] ?? '').trim()
    if (line === '' || line.startsWith('#')) continue
    while (line.endsWith(escape) && i + 1 < lines.length) {
      const next = (lines[++i] ?? '').trim()
      line = next.startsWith('#') || next === '' ? line : `${line.slice(0, -1).trim()} ${next}`
    }
    const [, keyword = '', rest = ''] = /^(\S+)\s*(.*)$/s.exec(line) ?? []
    out.push({ keyword: keyword.toUpperCase(), rest })
    for (const end of heredocEnds(keyword.toUpperCase(), rest)) {
      while (++i < lines.length && (lines[i] ?? '').trim() !== end);
    }
  }
  return out
}

function heredocEnds(keyword: string, rest: string): string[] {
  if (keyword !== 'RUN' && keyword !== 'COPY' && keyword !== 'ADD') return []
  return [...rest.matchAll(/<<-?\s*(["']?)(\w+)\1/g)].map((match) => match[2] as string)
}

const splitWords = (text: string): string[] =>
  (text.match(/(?:[^\s"']|"[^"]*"|'[^']*')+/g) ?? []).map((word) => word.replace(/["']/g, ''))

function remember(words: readonly string[], variables: Map<string, string>): void {
  if (words.length === 2 && !words[0]?.includes('=')) {
    variables.set(words[0] as string, words[1] as string)
    return
  }
  for (const word of words) {
    const at = word.indexOf('=')
    if (at > 0) variables.set(word.slice(0, at), word.slice(at + 1))
  }
}

/** `$NAME`, `${NAME}` and `${NAME:-default}`. */
function fillIn(text: string, variables: ReadonlyMap<string, string>): string {
  return text.replace(
    /\$(?:\{(\w+)(?::-([^}]*))?\}|(\w+))/g,
    (whole, braced?: string, fallback?: string, bare?: string) =>
      variables.get(braced ?? bare ?? '') ?? fallback ?? whole,
  )
}

/** `8080`, `8080/tcp`, `8000-8002`. A range counts from its first port. */
function tcpPorts(word: string): number[] {
  const match = /^(\d+)(?:-(\d+))?(?:\/(tcp|udp))?$/i.exec(word)
  if (!match || match[3]?.toLowerCase() === 'udp') return []
  const port = Number(match[1])
  return port >= 1 && port <= 65_535 ? [port] : []
}
