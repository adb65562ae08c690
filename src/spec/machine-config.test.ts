import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { autostartOf, autostopOf, machineConfigSchema, serviceSchema } from './machine-config.ts'

test('MCH-39: a config with keys nobody knows, nulls and absences is accepted as it is', () => {
  const config = {
    image: 'nginx',
    future: { a: 1 },
    env: null,
    services: [
      {
        protocol: 'tcp',
        internal_port: 80,
        force_instance_key: null,
        ports: [{ port: 443, novel: true }],
      },
    ],
  }
  assert.deepEqual(machineConfigSchema.parse(config), config)
})

test('bad configs are refused', () => {
  for (const bad of [
    {},
    { image: '' },
    { image: 'a', env: { A: 1 } },
    { image: 'a', services: [{ protocol: 'sctp', internal_port: 80 }] },
    { image: 'a', services: [{ protocol: 'tcp', internal_port: 0 }] },
    { image: 'a', mounts: [{ path: '/a' }, { path: '/b' }] },
    { image: 'a', stop_config: { timeout: 'soon' } },
    { image: 'a', mounts: [{ path: '/' }] },
    { image: 'a', mounts: [{ path: '/proc' }] },
    { image: 'a', mounts: [{ path: '/data/..//sys/fs' }] },
    { image: 'a', files: [{ guest_path: 'relative' }] },
    { image: 'a', files: [{ guest_path: '/a', mode: 0o10000 }] },
    { image: 'a', restart: { policy: 'sometimes' } },
  ]) {
    assert.equal(machineConfigSchema.safeParse(bad).success, false, JSON.stringify(bad))
  }
})

test('CONF-3 and the old spellings of autostop', () => {
  const service = (extra: object) =>
    serviceSchema.parse({ protocol: 'tcp', internal_port: 80, ...extra })
  assert.equal(autostartOf(service({})), true)
  assert.equal(autostartOf(service({ autostart: false })), false)
  assert.equal(autostopOf(service({})), 'off')
  assert.equal(autostopOf(service({ autostop: true })), 'stop')
  assert.equal(autostopOf(service({ autostop: false })), 'off')
  assert.equal(autostopOf(service({ autostop: 'suspend' })), 'suspend')
})

test('no JSON crashes the schema', () => {
  fc.assert(fc.property(fc.jsonValue(), (value) => void machineConfigSchema.safeParse(value)))
})
