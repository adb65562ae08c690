/** Reads what BuildKit says in plain progress, and turns a failure into something a person can act on. */

/** A line worth showing; digests and blank lines are not. */
export function visibleLine(line: string): string | undefined {
  const text = line.trimEnd()
  if (text === '' || /^#\d+ sha256:[0-9a-f]+$/.test(text)) return undefined
  return text
}

interface Step {
  title: string
  output: string[]
}

/** Collects the output of each step, a few lines of each, so that the failing one can be told. */
export class BuildStory {
  readonly #steps = new Map<string, Step>()
  #failed: string | undefined
  #last = ''

  static readonly linesKept = 20

  take(line: string): void {
    const match = /^#(\d+) (.*)$/.exec(line)
    if (!match) {
      if (line.trim() !== '' && !line.startsWith('------')) this.#last = line.trim()
      return
    }
    const [, number, text] = match as unknown as [string, string, string]
    const step = this.#steps.get(number)
    if (!step) {
      this.#steps.set(number, { title: text, output: [] })
    } else if (text.startsWith('ERROR: ')) {
      this.#failed = number
      this.#last = text.slice('ERROR: '.length)
    } else if (/^\d+\.\d+ /.test(text)) {
      step.output.push(text.replace(/^\d+\.\d+ /, ''))
      if (step.output.length > BuildStory.linesKept) step.output.shift()
    }
  }

  /** What failed: the line of the Dockerfile, the step, its last lines, and BuildKit's own words. */
  failure(dockerfile: { name: string; text: string }): string {
    const step = this.#failed === undefined ? undefined : this.#steps.get(this.#failed)
    const words = this.#last
      .replace(/^failed to solve with frontend \S+: failed to create LLB definition: /, '')
      .replace(/\/\S*\/buildkit-mount\d+\//, '')
    if (!step) return `${dockerfile.name}: ${words || 'the build failed without a word'}`
    const instruction = step.title.replace(/^\[[^\]]*\] /, '')
    const line = lineOfInstruction(dockerfile.text, instruction)
    const where = line === undefined ? dockerfile.name : `${dockerfile.name} line ${line}`
    const exit = /exit code: (\d+)$/.exec(words)
    const why = exit ? `exit code ${exit[1]}` : words
    const output = step.output.length > 0 ? `; it said:\n${step.output.join('\n')}` : ''
    return `${where}: ${instruction}: ${why}${output}`
  }
}

const normal = (text: string) => text.replaceAll(/\s+/g, ' ').trim()

/** The line on which the instruction starts, counted from 1. Continued lines count as one, comments inside are left out. */
export function lineOfInstruction(dockerfile: string, instruction: string): number | undefined {
  const wanted = normal(instruction).toLowerCase()
  const lines = dockerfile.split('\n')
  for (let i = 0; i < lines.length; i++) {
    const start = i
    let text = lines[i] as string
    if (/^\s*(#|$)/.test(text)) continue
    while (/\\\s*$/.test(text) && i + 1 < lines.length) {
      const next = lines[++i] as string
      text = text.replace(/\\\s*$/, '') + (/^\s*#/.test(next) ? '\\' : next)
    }
    const found = normal(text).toLowerCase()
    if (found !== '' && (found === wanted || found.startsWith(`${wanted} as `))) return start + 1
  }
  const base = /^load metadata for (.+)$/.exec(normal(instruction))?.[1]
  return base === undefined ? undefined : lineOfBase(lines, base)
}

/** The `FROM` that names an image which BuildKit spells out in full. */
function lineOfBase(lines: readonly string[], base: string): number | undefined {
  const index = lines.findIndex((line) => {
    const image = /^\s*from\s+(?:--\S+\s+)*(\S+)/i.exec(line)?.[1]
    return (
      image !== undefined &&
      (base === image || base.startsWith(`${image}:`) || base.includes(`/${image}`))
    )
  })
  return index < 0 ? undefined : index + 1
}
