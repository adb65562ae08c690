import assert from 'node:assert/strict'
import {
  closeSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { isFault } from '#core/fault.ts'
import { jailedDisk, runJailed } from './jail.ts'
import { run } from './process.ts'

const mebibyte = 1024 * 1024

function place(t: TestContext) {
  const dir = mkdtempSync(join(tmpdir(), 'hangar jail #1-'))
  t.after(() => rmSync(dir, { recursive: true }))
  const disk = join(dir, 'disk.img')
  writeFileSync(disk, 'content', { mode: 0o600 })
  truncateSync(disk, mebibyte)
  const jailed = (script: string, seconds = 20) =>
    runJailed(disk, ['sh', '-c', script], {
      seconds,
      // As the host does: under the lock of a folder, which the program is not to have.
      run: ([...words], options) => run('flock', ['--no-fork', dir, ...words], options),
    })
  return { dir, disk, jailed }
}

test('a jailed program has a user of its own, no capabilities, no network, and one file of the host', async (t) => {
  const { disk, jailed } = place(t)
  const secret = openSync(disk, 'r')
  t.after(() => closeSync(secret))
  const { code, stdout } = await jailed(`
    cat /proc/self/status; echo "network: $(tail -n +3 /proc/self/net/dev | cut -d: -f1)"
    echo root: /*; echo open: $(for each in /proc/$$/fd/*; do readlink $each; done); echo processes: $(ps -e -o user= | sort -u)
    echo $(env | cut -d= -f1 | grep -v PWD | sort); head -c 7 ${jailedDisk}; printf changed | dd of=${jailedDisk} conv=notrunc 2>/dev/null`)
  assert.equal(code, 0)
  const field = (name: string) => new RegExp(`^${name}:[ \\t]*(.*)$`, 'm').exec(stdout)?.[1]?.trim()
  assert.match(field('Uid') ?? '', /^(19[45]\d{7})\s+\1\s+\1\s+\1$/)
  assert.equal(field('Gid'), field('Uid'))
  assert.equal(field('Groups'), '')
  for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb']) {
    assert.match(field(set) ?? '', /^0+$/, set)
  }
  assert.equal(field('NoNewPrivs'), '1')
  assert.equal(field('network'), 'lo')
  assert.ok(!/home|root|tmp|etc|var/.test(field('root') ?? 'root'), stdout)
  assert.match(field('open') ?? '', /^((pipe|socket):\[\d+\] ?)+$/)
  assert.match(stdout, /^EXT2FS_NO_MTAB_OK LC_ALL MALLOC_ARENA_MAX PATH$/m)
  assert.match(stdout, /content$/)
  assert.match((await run('head', ['-c', '7', disk])).stdout, /changed/)
  const { uid, size } = statSync(disk)
  assert.deepEqual([uid, size], [0, mebibyte], "it is the host's again")
})

test('a jailed program takes no more of the host than it may, and leaves nothing', async (t) => {
  const { disk, jailed } = place(t)
  const refused = async (script: string) => assert.notEqual((await jailed(script)).code, 0, script)
  await refused(`dd if=/dev/zero of=${jailedDisk} bs=1M count=2`)
  assert.equal(statSync(disk).size, mebibyte)
  await refused(`dd if=${jailedDisk} of=/dev/null bs=2G count=1`)
  await refused('touch /usr/left')
  await refused('touch /left')
  await refused('i=0; while [ $i -lt 2000 ]; do sleep 2 & i=$((i + 1)); done')
  const { stdout } = await jailed('yes | head -c 1000000')
  assert.equal(stdout.length, 64 * 1024)
  const mark = String(86_400 + process.pid)
  const began = performance.now()
  await refused(`setsid sleep ${mark} & exit 3`)
  assert.equal((await jailed(`setsid sleep ${mark} & sleep ${mark}`, 1)).code, 100)
  assert.ok(performance.now() - began < 60_000)
  assert.equal((await run('pgrep', ['-f', `sleep ${mark}`])).stdout, '')
})

test('a program whose jail cannot be made is not run', async (t) => {
  const { dir } = place(t)
  const jail = {
    seconds: 5,
    run: ([word = '', ...words]: readonly string[], options: object) => run(word, words, options),
  }
  await assert.rejects(runJailed(dir, ['true'], jail), (error) => {
    return isFault(error, 'native_failed') && /true was not run/.test(error.message)
  })
  assert.equal(statSync(dir).uid, 0)
})
