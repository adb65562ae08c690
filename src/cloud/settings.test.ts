import assert from 'node:assert/strict'
import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { afterEach, beforeEach, test } from 'node:test'
import { controlSettingsSchema, edgeSettingsSchema, hostSettingsSchema } from '#spec/settings.ts'
import { run, runOk } from '#sys/process.ts'
import { clusterKeyOf, ensureSecrets } from './authority.ts'
import { chooseState } from './choose.ts'
import { overridesFrom } from './command.ts'
import { loadConfig } from './config.ts'
import { homeAt, prepareHome, type Home } from './home.ts'
import { planParts } from './plan.ts'
import { readState, writeState, type Overrides } from './state.ts'
import { removeHome, temporaryHome } from './test-support.ts'

let home: Home
beforeEach(() => {
  home = temporaryHome()
})
afterEach(() => removeHome(home))

async function settle(overrides: Overrides) {
  const config = loadConfig(home, overrides)
  const choice = { config, overrides, kept: undefined, neighbours: [], mayMovePorts: false }
  const { state } = await chooseState(choice)
  writeState(home, state)
  return { home, config, state }
}

test('the command line wins over hangar.toml, and the rest of the file still counts', () => {
  writeFileSync(
    home.config,
    'regions = ["ord"]\n[edge]\nslots = 64\nautostop_interval_ms = 5000\n[mirrors]\n"ghcr.io" = ["http://10.0.0.1"]\n',
  )
  const overrides = overridesFrom(
    {
      region: ['fra'],
      regions: 'nrt,fra',
      'autostop-interval': '1500',
      mirror: ['docker.io=http://127.0.0.1:5000'],
    },
    {},
  )
  const config = loadConfig(home, overrides)
  assert.deepEqual(config.regions, ['fra', 'nrt'])
  assert.deepEqual(config.edge, { slots: 64, autostop_interval_ms: 1500, hold_ms: 60_000 })
  assert.deepEqual(config.mirrors, { 'docker.io': ['http://127.0.0.1:5000'] })
})

test('what is wrong in hangar.toml is named with its place', () => {
  writeFileSync(home.config, 'regions = ["ord"]\nregoins = 3\n')
  assert.throws(() => loadConfig(home, {}), /hangar\.toml is not valid[^]*regoins/)
  writeFileSync(home.config, 'regions = ["ord"\n\nx = ')
  assert.throws(() => loadConfig(home, {}), /hangar\.toml:\d/)
})

test('flags that make no sense are refused with an example', () => {
  assert.throws(() => overridesFrom({ mirror: ['docker.io'] }, {}), /docker\.io=http/)
  assert.throws(() => overridesFrom({ 'hosts-per-region': 'two' }, {}), /whole number/)
  assert.throws(() => overridesFrom({ runtime: 'vm' }, {}), /auto, qemu or container/)
  assert.throws(() => overridesFrom({}, { HANGAR_RUNTIME: 'kvm' }), /HANGAR_RUNTIME is "kvm"/)
  assert.equal(overridesFrom({}, { HANGAR_RUNTIME: 'qemu' }).runtime, 'qemu')
  const flagWins = overridesFrom({ runtime: 'auto' }, { HANGAR_RUNTIME: 'qemu' })
  assert.equal(flagWins.runtime, 'auto')
})

test('every role gets settings that its schema accepts', async () => {
  await ensureSecrets(home, 'hangar.localhost')
  const world = await settle({ regions: ['ord', 'fra'], hosts_per_region: 2 })
  const schemas = {
    control: controlSettingsSchema,
    host: hostSettingsSchema,
    edge: edgeSettingsSchema,
  }
  const seen: string[] = []
  for (const part of planParts(world)) {
    const role = /^(control|host|edge)(-|$)/.exec(part.name)?.[1] as
      | keyof typeof schemas
      | undefined
    if (!role) continue
    await part.prepare()
    const file = home.settings(`${part.name}.json`)
    schemas[role].parse(JSON.parse(readFileSync(file, 'utf8')))
    assert.equal(statSync(file).mode & 0o077, 0, 'settings hold credentials')
    seen.push(role)
  }
  assert.deepEqual(seen.toSorted(), [
    'control',
    ...Array<string>(4).fill('edge'),
    ...Array<string>(4).fill('host'),
  ])
})

test('the state is read back as written, and one that is damaged is never overwritten', async () => {
  const { state } = await settle({})
  assert.deepEqual(readState(home), state)
  writeFileSync(home.state, '{"version":1')
  assert.throws(() => readState(home), /state\.json cannot be read/)
})

test('keys are made once, and the CA may only sign for the domain', async () => {
  await ensureSecrets(home, 'hangar.localhost')
  const key = clusterKeyOf(home)
  const ca = readFileSync(home.ca.cert, 'utf8')
  assert.ok(key.length >= 40)
  for (const secret of [home.clusterKey, home.ca.key, home.registryToken.key]) {
    assert.equal(statSync(secret).mode & 0o777, 0o600, secret)
  }
  await ensureSecrets(home, 'hangar.localhost')
  assert.equal(clusterKeyOf(home), key)
  assert.equal(readFileSync(home.ca.cert, 'utf8'), ca)

  const verify = async (name: string) => {
    const leaf = `${home.ca.dir}/leaf`
    const made = [
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-subj',
      '/CN=x',
    ]
    const names = ['-addext', `subjectAltName=DNS:${name}`]
    const signer = ['-CA', home.ca.cert, '-CAkey', home.ca.key]
    const out = ['-keyout', `${leaf}.key`, '-out', `${leaf}.pem`]
    await runOk('openssl', ['req', '-x509', ...made, ...names, ...signer, ...out])
    return (await run('openssl', ['verify', '-CAfile', home.ca.cert, `${leaf}.pem`])).code
  }
  assert.equal(await verify('a.hangar.localhost'), 0)
  assert.notEqual(await verify('example.com'), 0)
})

test("somebody else's folder is refused, and so is one with too long a name", () => {
  writeFileSync(`${home.dir}/precious`, '')
  const foreign = homeAt(home.dir)
  rmSync(foreign.marker)
  assert.throws(() => prepareHome(foreign), /not a Hangar home/)
  assert.throws(() => homeAt(`/srv/${'x'.repeat(60)}`), /too long/)
})
