import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, afterEach, before, test } from 'node:test'
import type { DaemonRecord } from '#sys/daemon.ts'
import { callJson } from '#sys/http-client.ts'
import { run, signalProcess } from '#sys/process.ts'
import { eventually } from '#sys/test-support.ts'
import { startTestCloud, type TestCloud } from './support/test-cloud.ts'

/** Two regions with two hosts each on one machine: what is spread over them, and what one of them takes along. */

interface Place {
  id: string
  region: string
  number: number
}
interface Listed {
  id: string
  instance_id: string
  state: string
  region: string
  private_ip: string
  host_status: string
}

const slow = { timeout: 240_000 }
/** Far more than a call takes that waits for no host, and far less than the 10 s that one waits for a host. */
const unheldMsMax = 5_000

let cloud: TestCloud
let folder: string

const places = () =>
  (JSON.parse(readFileSync(join(cloud.home, 'state.json'), 'utf8')) as { places: Place[] }).places
const placeOf = (id: string) => places().find((place) => place.id.startsWith(id)) as Place
const daemonOf = (name: string) => cloud.daemons(name)[0] as DaemonRecord

/** NET-1: groups 4 and 5 of the address. */
function placeOfMachine({ private_ip }: Listed): string {
  const groups = private_ip.split(':')
  assert.equal(groups.length, 8, private_ip)
  const number =
    Number.parseInt(groups[3] ?? '', 16) * 65_536 + Number.parseInt(groups[4] ?? '', 16)
  return places().find((place) => place.number === number)?.id ?? `nobody's: ${private_ip}`
}

async function list(app: string): Promise<Listed[]> {
  const answer = await cloud.api('GET', `/v1/apps/${app}/machines`)
  assert.equal(answer.status, 200, answer.body)
  return JSON.parse(answer.body) as Listed[]
}

const onPlace = async (app: string, place: Place) =>
  (await list(app)).filter((machine) => placeOfMachine(machine) === place.id)

async function timed<T>(act: () => Promise<T>): Promise<{ value: T; ms: number }> {
  const begun = performance.now()
  return { value: await act(), ms: performance.now() - begun }
}

const serverConfig = {
  image: 'busybox',
  init: {
    exec: ['sh', '-c', 'echo $FLY_MACHINE_ID > /tmp/index.html; exec httpd -f -p 8080 -h /tmp'],
  },
}

async function create(app: string, region: string): Promise<Listed> {
  const answer = await cloud.api('POST', `/v1/apps/${app}/machines`, {
    region,
    config: serverConfig,
  })
  assert.equal(answer.status, 200, answer.body)
  const machine = JSON.parse(answer.body) as Listed
  const wait = await cloud.api('GET', `/v1/apps/${app}/machines/${machine.id}/wait?state=started`)
  assert.equal(wait.status, 200, wait.body)
  return machine
}

async function createApp(name: string, org = 'personal'): Promise<void> {
  const answer = await cloud.api('POST', '/v1/apps', { app_name: name, org_slug: org })
  assert.equal(answer.status, 201, answer.body)
}

/** What is read of `to` from inside the network of `from`; empty when it cannot be reached. */
async function readOver6pn(from: Listed, to: Listed): Promise<string> {
  const netns = `hgr-${placeOfMachine(from)}-${from.id}`
  const url = `http://[${to.private_ip}]:8080/index.html`
  const curl = ['curl', '-sS', '-g', '--noproxy', '*', '--max-time', '2', url]
  return (await run('ip', ['netns', 'exec', netns, ...curl])).stdout.trim()
}

/** A machine is started a moment before its server listens. */
const reaches = (from: Listed, to: Listed) =>
  eventually(
    `${from.private_ip} reaches ${to.private_ip}`,
    async () => (await readOver6pn(from, to)) === to.id,
  )

/** The machines that answer at the first edge, out of many requests. */
async function whoServes(app: string): Promise<Set<string>> {
  const answers = await Promise.all(Array.from({ length: 24 }, () => cloud.get(app, '/index.html')))
  for (const { status, body } of answers) assert.equal(status, 200, body)
  return new Set(answers.map(({ body }) => body.trim()))
}

/** What the host itself says it has of an app. */
async function askHost(place: Place, path: string): Promise<Listed[]> {
  const key = readFileSync(join(cloud.home, 'cluster.key'), 'utf8').trim()
  return callJson(`unix:${join(cloud.home, 'run', `host-${place.id}.sock`)}`, {
    method: 'GET',
    path,
    headers: { authorization: `Bearer ${key}` },
    timeoutMs: 60_000,
  })
}

before(async () => {
  cloud = await startTestCloud({
    name: 'hosts',
    images: ['busybox'],
    upArgs: ['--regions', 'ord,fra'],
  })
  folder = join(cloud.home, 'apps', 'web')
  mkdirSync(folder, { recursive: true })
}, slow)
/** Whatever a test stopped goes on, whether it failed or not. */
function wakeAll(): void {
  for (const name of ['cloud', 'host-']) {
    for (const daemon of cloud?.daemons(name) ?? []) signalProcess(daemon, 'SIGCONT')
  }
}
afterEach(wakeAll)
after(() => cloud?.destroy(), slow)

const writeApp = (version: string) =>
  writeFileSync(
    join(folder, 'fly.toml'),
    [
      'app = "web"',
      'primary_region = "ord"',
      '[build]',
      'image = "busybox"',
      '[env]',
      `VERSION = "${version}"`,
      '[processes]',
      `app = "sh -c 'echo $FLY_MACHINE_ID > /tmp/index.html; exec httpd -f -p 8080 -h /tmp'"`,
      '[http_service]',
      'internal_port = 8080',
      'auto_stop_machines = "off"',
      'processes = ["app"]',
    ].join('\n'),
  )

test('a cloud that runs takes more hosts, and refuses to lose one', slow, async () => {
  const before = cloud.daemons('host-').map((daemon) => daemon.pid)
  await cloud.ok(['up', '--hosts-per-region', '2'])
  const pids = cloud.daemons('host-').map((daemon) => daemon.pid)
  assert.equal(pids.length, 4)
  assert.ok(
    before.every((pid) => pids.includes(pid)),
    'what ran runs on',
  )
  // A host that has only just begun may take longer for an answer than the status waits for it.
  await eventually('every host answers', async () => {
    const { hosts } = JSON.parse(await cloud.ok(['status', '--json'])) as {
      hosts: { region: string; reachable: boolean }[]
    }
    const regions = hosts.filter(({ reachable }) => reachable).map(({ region }) => region)
    return regions.toSorted().join() === 'fra,fra,ord,ord'
  })
  assert.match(await cloud.ok(['doctor']), /ord with 2 hosts, fra with 2 hosts/)
  const fewer = await cloud.hangar(['up', '--regions', 'ord'])
  assert.equal(fewer.code, 1)
  assert.match(
    fewer.stderr,
    /leave out fra1-.*, fra2-.*Write --regions ord,fra --hosts-per-region 2/,
  )
  assert.equal(cloud.daemons('host-').length, 4)
})

test(
  'MCH-90, NET-1: an app is spread over hosts and regions, and its addresses show where',
  slow,
  async () => {
    writeApp('one')
    await cloud.ok(['launch', '--copy-config', '--name', 'web', '--now', '--yes'], { cwd: folder })
    const pair = await list('web')
    assert.equal(new Set(pair.map(placeOfMachine)).size, 2, 'a pair for availability has two hosts')
    await cloud.ok(['scale', 'count', '2', '--region', 'fra', '-a', 'web', '--yes'])
    const all = await list('web')
    assert.deepEqual(
      all.map(placeOfMachine).toSorted(),
      places()
        .map(({ id }) => id)
        .toSorted(),
    )
    for (const machine of all) {
      const place = places().find(({ id }) => id === placeOfMachine(machine))
      assert.equal(machine.region, place?.region)
    }
  },
)

test(
  'NET-3: machines of an organization reach each other on every host, and nobody else does',
  slow,
  async () => {
    const query =
      'mutation($input: CreateOrganizationInput!) { createOrganization(input: $input) { organization { slug } } }'
    const made = await cloud.api('POST', '/graphql', {
      query,
      variables: { input: { name: 'Others' } },
    })
    const { data } = JSON.parse(made.body) as {
      data: { createOrganization: { organization: { slug: string } } }
    }
    await createApp('foreign', data.createOrganization.organization.slug)
    const foreign = [await create('foreign', 'ord'), await create('foreign', 'fra')] as const
    const mine = await list('web')
    const from = mine[0] as Listed
    for (const to of mine) await reaches(from, to)
    await reaches(foreign[0], foreign[1])
    for (const to of foreign) assert.equal(await readOver6pn(from, to), '')
    assert.equal(await readOver6pn(foreign[0], from), '')
  },
)

test(
  'a dead host takes nothing along: reads, deploys, creates and destroys go on, its machines serve',
  slow,
  async () => {
    const [alive, dead] = [placeOf('ord1'), placeOf('ord2')]
    await createApp('doomed')
    const doomed = [await create('doomed', 'ord'), await create('doomed', 'ord')]
    assert.equal(new Set(doomed.map(placeOfMachine)).size, 2)
    const [left] = await onPlace('web', dead)
    assert.ok(left)
    const supervisor = daemonOf('cloud')
    signalProcess(supervisor, 'SIGSTOP')
    signalProcess(daemonOf(`host-${dead.id}`), 'SIGKILL')

    const listed = await list('web')
    const lost = listed.filter((machine) => machine.host_status === 'unreachable')
    assert.deepEqual(
      lost.map(({ id, state }) => [id, state]),
      [[left.id, 'started']],
    )
    assert.match(await cloud.ok(['status', '-a', 'web']), /host is unreachable/)
    assert.match(await cloud.ok(['status']), new RegExp(`${dead.id} +ord +unreachable`))
    assert.ok((await whoServes('web')).has(left.id), 'its machines serve')

    writeApp('two')
    const deploy = await cloud.hangar(['deploy'], { cwd: folder })
    assert.equal(deploy.code, 0, deploy.stderr)
    assert.match(
      deploy.stdout + deploy.stderr,
      new RegExp(`${left.id} is left as it is: its host does not answer`),
    )
    const made = await create('web', 'ord')
    assert.equal(placeOfMachine(made), alive.id)
    const gone = await cloud.api('DELETE', `/v1/apps/web/machines/${made.id}?force=true`)
    assert.equal(gone.status, 200, gone.body)
    await cloud.ok(['apps', 'destroy', 'doomed', '--yes'])
    assert.equal((await cloud.api('GET', '/v1/apps/doomed')).status, 404)

    signalProcess(supervisor, 'SIGCONT')
    const back = await eventually('the host is back with its machine', async () =>
      (await list('web')).find(({ id, host_status }) => id === left.id && host_status === 'ok'),
    )
    assert.equal(back.instance_id, left.instance_id)
    assert.equal(back.state, 'started')
    const remains = doomed.find((machine) => placeOfMachine(machine) === dead.id) as Listed
    await eventually('its unwanted machine is destroyed', async () =>
      (await askHost(dead, '/v1/machines')).every((machine) => machine.id !== remains.id),
    )
    await cloud.ok(['deploy'], { cwd: folder })
    assert.notEqual((await onPlace('web', dead))[0]?.instance_id, left.instance_id, 'deployed now')
  },
)

test('a host that hangs is waited for once', slow, async () => {
  const [alive, hung] = [placeOf('ord1'), placeOf('ord2')]
  const host = daemonOf(`host-${hung.id}`)
  signalProcess(host, 'SIGSTOP')
  // Placed, or tried on the silent host and then elsewhere, before anybody knows.
  const [, made] = await Promise.all([list('web'), create('web', 'ord')])
  assert.equal(placeOfMachine(made), alive.id)
  await eventually('it is known', async () =>
    (await list('web')).some((machine) => machine.host_status === 'unreachable'),
  )
  const many = await timed(() => Promise.all(Array.from({ length: 30 }, () => list('web'))))
  assert.ok(many.ms < unheldMsMax, `30 lists took ${many.ms} ms`)
  const [left] = await onPlace('web', hung)
  assert.ok(left)
  assert.equal(left.host_status, 'unreachable')
  const read = await timed(() => cloud.api('GET', `/v1/apps/web/machines/${left.id}`))
  assert.equal((JSON.parse(read.value.body) as Listed).host_status, 'unreachable')
  const refused = await timed(() => cloud.api('POST', `/v1/apps/web/machines/${left.id}/stop`))
  assert.match(refused.value.body, /does not answer/)
  for (const { ms } of [read, refused]) assert.ok(ms < unheldMsMax, `a call took ${ms} ms`)
  assert.ok((await whoServes('web')).has(left.id))
  const doctor = await cloud.hangar(['doctor'])
  assert.match(doctor.stdout, new RegExp(`host-${hung.id} runs but does not answer`))

  signalProcess(host, 'SIGCONT')
  await eventually('all answer again', async () =>
    (await list('web')).every((machine) => machine.host_status === 'ok'),
  )
  assert.equal((await cloud.api('POST', `/v1/apps/web/machines/${left.id}/restart`)).status, 200)
})

test(
  'a request wakes a machine elsewhere while the host of the first choice hangs',
  slow,
  async () => {
    const hung = placeOf('ord2')
    const onHung = await onPlace('web', hung)
    // Those that rest longer are the first choice.
    for (const machine of [...onHung, ...(await onPlace('web', placeOf('ord1')))]) {
      const stopped = await cloud.api('POST', `/v1/apps/web/machines/${machine.id}/stop`)
      assert.equal(stopped.status, 200, stopped.body)
      await eventually('it rests', async () =>
        (await list('web')).some(({ id, state }) => id === machine.id && state === 'stopped'),
      )
    }
    const host = daemonOf(`host-${hung.id}`)
    signalProcess(host, 'SIGSTOP')
    try {
      const answer = await timed(() => whoServes('web'))
      assert.ok(answer.ms < 30_000, `a cold request took ${answer.ms} ms`)
      assert.ok(onHung.every(({ id }) => !answer.value.has(id)))
    } finally {
      signalProcess(host, 'SIGCONT')
    }
  },
)
