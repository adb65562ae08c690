import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createReadStream, mkdtempSync, rmSync, statSync } from 'node:fs'
import { setPriority, tmpdir } from 'node:os'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { createGunzip } from 'node:zlib'
import { flatten } from '#host/image/flatten.ts'
import { runOk } from '#sys/process.ts'
import { inTurns, median, option, timedMs } from './support/rounds.ts'

/**
 * The conversion of an image, which happens once for each digest: one gzip layer into a squashfs, beside `tar2sqfs` alone
 * with the same options, once fed by `gzip -d` and once with the plain archive.
 *
 *   node bench/images.ts [--rounds 3]
 */
const rounds = option('rounds', 3)
const options = ['--quiet', '--force', '--no-skip', '--compressor', 'zstd', '--comp-extra']
const dir = mkdtempSync(join(tmpdir(), 'hangar-bench-images-'))
const at = (name: string) => join(dir, name)

/** Any tree of programs and libraries that every Debian has. */
async function makeLayer(): Promise<number> {
  const folders = ['usr/bin', 'usr/share/perl']
  const gone = ['--ignore-failed-read', '--warning=no-file-changed', '--exclude=*.a']
  await runOk('tar', ['-C', '/', ...gone, '-cf', at('layer.tar'), ...folders])
  await runOk('sh', ['-c', `gzip -1 < '${at('layer.tar')}' > '${at('layer.tar.gz')}'`])
  return statSync(at('layer.tar')).size
}

async function alone(source: string, unpack: boolean): Promise<void> {
  const child = spawn('tar2sqfs', [...options, 'level=1', at('alone.sqfs')], {
    stdio: ['pipe', 'ignore', 'inherit'],
  })
  setPriority(child.pid ?? 0, 10)
  const ended = once(child, 'exit') as Promise<[number | null]>
  const read = createReadStream(source, { highWaterMark: 1024 * 1024 })
  if (unpack) await pipeline(read, createGunzip({ chunkSize: 1024 * 1024 }), child.stdin)
  else await pipeline(read, child.stdin)
  const [code] = await ended
  if (code !== 0) throw new Error(`tar2sqfs exited with ${code}`)
}

try {
  const bytes = await makeLayer()
  const results = await inTurns(rounds, {
    'Hangar: gzip layer to squashfs': () =>
      timedMs(() => flatten({ layers: [at('layer.tar.gz')], squashfsPath: at('ours.sqfs') })),
    '`tar2sqfs` alone, its input unpacked meanwhile': () =>
      timedMs(() => alone(at('layer.tar.gz'), true)),
    '`tar2sqfs` alone, plain archive': () => timedMs(() => alone(at('layer.tar'), false)),
  })
  const perGb = (samples: number[]) => median(samples) / 1000 / (bytes / 1e9)
  const [ours = 0] = Object.values(results).map(perGb)
  console.log(`\n### Conversion of ${Math.round(bytes / 1e6)} MB, median of ${rounds}\n`)
  console.log('| what | seconds per GB | Hangar is |\n| --- | --- | --- |')
  for (const [name, samples] of Object.entries(results)) {
    const own = perGb(samples)
    console.log(`| ${name} | ${own.toFixed(2)} | ${(ours / own).toFixed(2)} × its time |`)
  }
} finally {
  rmSync(dir, { recursive: true, force: true })
}
