import { systemClock } from '#core/clock.ts'
import { Transform } from 'node:stream'
import { Fault } from '#core/fault.ts'
import { humanBytes } from './age.ts'
import { part, type Api } from './api.ts'
import { openBuildContext } from './build-context.ts'
import { colorsOf, complain, say, type Io } from './io.ts'

/** A line of a build's output; only the last one has a status. */
interface BuildLine {
  level?: 'log' | 'error'
  message?: string
  status?: 'complete' | 'failed'
  image?: { ref: string; digest: string; size: number }
  error?: string
}

export interface BuildInput {
  app: string
  folder: string
  dockerfile: string
  ignorefile: string | undefined
  target?: string | undefined
  args: Record<string, string>
  /** SEC-9. */
  secrets: Record<string, string>
  label?: string | undefined
  noCache: boolean
}

/** Sends the folder, shows what the build says, and resolves with the image. A failed build is a Fault. */
export async function buildImage(
  io: Io,
  api: Api,
  input: BuildInput,
): Promise<{ ref: string; digest: string; size: number }> {
  const colors = colorsOf(io)
  say(io, colors.green('==> Building image'))
  const context = await openBuildContext(input)
  const builds = `/api/v1/apps/${part(input.app)}/builds`
  const { id } = await api.post<{ id: string }>(builds, {
    dockerfile: context.dockerfile,
    args: input.args,
    secrets: input.secrets,
    no_cache: input.noCache,
    ...(input.target ? { target: input.target } : {}),
    ...(input.label ? { label: input.label } : {}),
  })
  const startedAt = systemClock.now()
  const body = context.pack().pipe(
    countBytes((sent) => {
      const seconds = ((systemClock.now() - startedAt) / 1000).toFixed(1)
      say(io, `Sent ${context.files} files, ${humanBytes(sent)} in ${seconds} s`)
    }),
  )
  const upload = api.upload<BuildLine>(`${builds}/${part(id)}/context`, body, 'application/x-tar')
  for await (const line of upload) {
    if (line.message !== undefined) {
      if (line.level === 'error') complain(io, colors.red(line.message))
      else say(io, colors.dim(line.message))
    }
    if (line.status === 'failed') {
      throw new Fault(
        'build_failed',
        `failed to build the image: ${line.error ?? 'no reason given'}`,
      )
    }
    if (line.status === 'complete' && line.image) {
      say(io, colors.green('--> Building image done'))
      return line.image
    }
  }
  throw new Fault(
    'host_unreachable',
    'the connection broke before the build was over; deploy again, what was built is kept',
  )
}

/** Passes bytes on and tells at the end how many there were. */
function countBytes(done: (bytes: number) => void): Transform {
  let bytes = 0
  return new Transform({
    transform(chunk: Buffer, _encoding, callback) {
      bytes += chunk.length
      callback(null, chunk)
    },
    flush(callback) {
      done(bytes)
      callback()
    },
  })
}
