import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { join, resolve } from 'node:path'
import { runOk } from '#sys/process.ts'
import { eventually } from '#sys/test-support.ts'
import type { TestCloud } from './test-cloud.ts'

const root = resolve(import.meta.dirname, '../..')
const patienceMs = 60_000

/** `./hangar` at a terminal as a person has one, of 33 rows and 99 columns. */
function openTerminal(cloud: TestCloud, args: readonly string[]) {
  const words = args.map((word) => `'${word}'`).join(' ')
  const line = `tty; stty rows 33 columns 99; sh -c 'echo pid=$$; exec "$0" "$@"' ${join(root, 'hangar')} ${words}; echo code=$?; stty -a`
  const child = spawn('script', ['-qfec', line, '/dev/null'], {
    cwd: cloud.home,
    env: { ...process.env, HANGAR_HOME: cloud.home, TERM: 'vt100' },
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  let text = ''
  child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()))
  const over = new Promise((done) => child.on('close', done))
  const shows = (wanted: RegExp) =>
    eventually(
      `the terminal shows ${wanted}`,
      async () => wanted.exec(text) ?? undefined,
      patienceMs,
    ).catch((error: unknown) => {
      throw new Error(`it shows ${JSON.stringify(text)}`, { cause: error })
    })
  return {
    shows,
    type: (typed: string) => void child.stdin.write(typed),
    resize: async (rows: number, columns: number) => {
      const [path = ''] = await shows(/\/dev\/pts\/\d+/)
      await runOk('stty', ['-F', path, 'rows', String(rows), 'columns', String(columns)])
    },
    pid: async () => Number((await shows(/pid=(\d+)/))[1]),
    /** What the program ended with; the terminal must be as it was. */
    end: async (): Promise<number> => {
      const [, code] = await shows(/code=(\d+)[^]*speed/)
      await over
      assert.match(text, /^isig icanon iexten echo /m)
      assert.match(text, /^opost /m)
      return Number(code)
    },
    close: () => child.kill('SIGKILL'),
  }
}

/** Until the shell is there, a machine that was woken for it may fall asleep again: it is woken and asked once more. */
function openShell(
  cloud: TestCloud,
  { app, machine, busybox }: { app: string; machine: string; busybox: string },
) {
  return eventually(
    'a shell is open',
    async () => {
      await cloud.hangar(['m', 'start', machine, '-a', app])
      const shell = openTerminal(cloud, [
        'm',
        'exec',
        '-a',
        app,
        '-it',
        machine,
        '--',
        busybox,
        'sh',
      ])
      shell.type(`${busybox} stty size; echo "$TERM ho""me $HOME"\n`)
      const [, size] = await shell.shows(/(33 99\r\nvt100 home \/root)|cannot run a command/)
      if (size !== undefined) return shell
      shell.close()
      return undefined
    },
    3 * patienceMs,
  )
}

/** One walk through a shell in a machine whose busybox is at `busybox`; the edge lets its app sleep while nobody asks for anything. */
export async function walkInShell(
  cloud: TestCloud,
  { app, machine, busybox }: { app: string; machine: string; busybox: string },
): Promise<void> {
  const inside = ['m', 'exec', '-a', app]
  const shell = await openShell(cloud, { app, machine, busybox })
  try {
    await shell.resize(40, 120)
    shell.type(`${busybox} stty size\n`)
    await shell.shows(/40 120/)
    // Several times as long as an idle machine may run.
    shell.type(`echo sl""eeps; ${busybox} sleep 6; echo still" "here\n`)
    await shell.shows(/still here/)
    shell.type(`echo be"-"gun; ${busybox} sleep 600\n`)
    await shell.shows(/be-gun/)
    const runs = async () =>
      (await cloud.hangar([...inside, machine, `${busybox} ps`])).stdout.includes('sleep 600')
    await eventually('it sleeps', runs)
    shell.type('\x03')
    shell.type('echo after"-"it\n')
    await shell.shows(/after-it/)
    assert.equal(await runs(), false)
    await endedFromOutside(cloud, [...inside, '-it', machine, '--', busybox, 'sh'])
    const input = 'x'.repeat(300_000)
    const count = [...inside, '-i', machine, '--', busybox, 'wc', '-c']
    const piped = await cloud.hangar(count, { input })
    assert.deepEqual([piped.code, piped.stdout.trim()], [0, '300000'], piped.stderr)
    const missing = await cloud.hangar([...inside, '-i', machine, '--', 'no-such-program'])
    assert.deepEqual([missing.code, missing.stdout], [127, ''])
    assert.match(missing.stderr, /not found in the machine/)
    shell.type('exit 7\n')
    assert.equal(await shell.end(), 7)
  } finally {
    shell.close()
  }
}

async function endedFromOutside(cloud: TestCloud, args: string[]): Promise<void> {
  const ended = openTerminal(cloud, args)
  try {
    ended.type('echo re"-"ady\n')
    await ended.shows(/re-ady/)
    process.kill(await ended.pid(), 'SIGTERM')
    assert.equal(await ended.end(), 127)
  } finally {
    ended.close()
  }
}
