import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { startTestCloud, type CommandResult, type TestCloud } from './support/test-cloud.ts'

/** What users get wrong, and what they are told. Each mistake names the thing and what to do, and changes nothing. */

let cloud: TestCloud
const slow = { timeout: 300_000 }

before(async () => {
  cloud = await startTestCloud({ name: 'mistakes', images: ['busybox'] })
}, slow)
after(async () => {
  await cloud?.destroy()
}, slow)

const http = '[http_service]\ninternal_port = 8080\n'

async function deploy(
  app: string,
  files: Record<string, string>,
  args: string[] = [],
): Promise<CommandResult> {
  const folder = join(cloud.home, 'apps', app)
  mkdirSync(folder, { recursive: true })
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text)
  await cloud.hangar(['apps', 'create', app])
  return await cloud.hangar(['deploy', '--ha=false', ...args], { cwd: folder })
}

const said = (result: CommandResult) => result.stdout + result.stderr

test('a bad fly.toml: line and key', slow, async () => {
  const result = await deploy('badtoml', {
    'fly.toml': 'app = "badtoml"\n[http_service]\ninternal_port = "eighty"\n',
  })
  assert.equal(result.code, 1)
  assert.match(said(result), /fly\.toml:3/)
  assert.match(said(result), /internal_port/)
})

test('a TOML that does not parse: line', slow, async () => {
  const result = await deploy('nottoml', { 'fly.toml': 'app = "nottoml"\n[http_service\n' })
  assert.equal(result.code, 1)
  assert.match(said(result), /fly\.toml:2/)
})

test('a Dockerfile that fails: the step and its output', slow, async () => {
  const result = await deploy('badbuild', {
    'fly.toml': `app = "badbuild"\n${http}`,
    Dockerfile: 'FROM busybox\nRUN echo the reason; exit 9\n',
  })
  assert.equal(result.code, 1)
  assert.match(said(result), /the reason/)
  assert.match(said(result), /exit code: 9/)
})

test('no Dockerfile and no image: what to add', slow, async () => {
  const result = await deploy('nosource', { 'fly.toml': `app = "nosource"\n${http}` })
  assert.equal(result.code, 1)
  assert.match(said(result), /Dockerfile/)
  assert.match(said(result), /--image/)
})

test('an image that does not exist: its name, and nothing is left behind', slow, async () => {
  const result = await deploy('noimage', { 'fly.toml': `app = "noimage"\n${http}` }, [
    '--image',
    'busybox:never-made',
  ])
  assert.equal(result.code, 1)
  assert.match(said(result), /busybox:never-made/)
  assert.equal((await cloud.ok(['m', 'list', '-a', 'noimage', '--json'])).trim(), '[]')
})

test('a command that exits: its code and its last words', slow, async () => {
  const result = await deploy('quits', {
    'fly.toml': `app = "quits"\n${http}`,
    Dockerfile: 'FROM busybox\nCMD ["sh", "-c", "echo cannot find my config; exit 3"]\n',
  })
  assert.equal(result.code, 1)
  assert.match(said(result), /cannot find my config/)
  assert.match(said(result), /\b3\b/)
})

test('a command that the image does not have', slow, async () => {
  const result = await deploy('nocommand', {
    'fly.toml': `app = "nocommand"\n${http}`,
    Dockerfile: 'FROM busybox\nCMD ["serve-it"]\n',
  })
  assert.equal(result.code, 1)
  assert.match(said(result), /serve-it/)
})

test('a port that nobody listens on: which, and where the app should listen', slow, async () => {
  const result = await deploy(
    'deaf',
    {
      'fly.toml': `app = "deaf"\n${http}`,
      Dockerfile: 'FROM busybox\nCMD ["httpd", "-f", "-p", "127.0.0.1:9999"]\n',
    },
    ['--wait-timeout', '8s'],
  )
  assert.equal(result.code, 1)
  assert.match(said(result), /8080/)
  assert.match(said(result), /127\.0\.0\.1:9999/)
  assert.match(said(result), /0\.0\.0\.0/)
})

test('an app that does not exist, and a command that does not exist', slow, async () => {
  const status = await cloud.hangar(['status', '-a', 'nobody'])
  assert.equal(status.code, 1)
  assert.match(said(status), /nobody/)
  const typo = await cloud.hangar(['deploi'])
  assert.notEqual(typo.code, 0)
  assert.match(said(typo), /deploy/)
})

test('an unknown host name at the edge names the app and what to do', slow, async () => {
  const answer = await cloud.get('unheard-of')
  assert.equal(answer.status, 404)
  assert.match(answer.body, /unheard-of/)
})
