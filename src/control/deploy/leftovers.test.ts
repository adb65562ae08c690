import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Machine } from '#spec/machine.ts'
import { leftoversOf } from './leftovers.ts'

const release = { id: 'rel_2', version: 2, strategy: 'bluegreen' }

function machine(
  id: string,
  metadata: Record<string, string>,
  changes: { cordoned?: boolean; state?: string; auto_destroy?: boolean } = {},
): Machine {
  const { auto_destroy = false, ...rest } = changes
  const all = { fly_platform_version: 'v2', fly_process_group: 'app', ...metadata }
  const config = { image: 'i', auto_destroy, metadata: all }
  return { id, state: 'started', cordoned: false, ...rest, config } as unknown as Machine
}
const tag = 'fly_bluegreen_deployment_tag'
const blue = (id: string, changes = {}, mark = '1') =>
  machine(id, { fly_release_id: 'rel_1', [tag]: mark }, changes)
const green = (id: string, changes = {}) =>
  machine(id, { fly_release_id: 'rel_2', [tag]: '2' }, changes)
const named = (machines: Machine[], strategy = 'bluegreen') =>
  leftoversOf({ ...release, strategy }, machines).map((one) => one.machine.id)

test('DEP-20: the green machines go while the blue ones serve untouched', () => {
  assert.deepEqual(named([blue('b1'), blue('b2'), green('g1', { cordoned: true })]), ['g1'])
  assert.deepEqual(
    named([blue('b1'), green('g1')]),
    ['g1'],
    'in traffic, but the release never won',
  )
  assert.deepEqual(named([blue('b1', { cordoned: true }), green('g1')]), [])
  assert.deepEqual(named([blue('b1', { state: 'stopped' }), green('g1')]), [])
  assert.deepEqual(named([green('g1'), green('g2')]), [], 'the blue ones are gone: it is done')
  assert.deepEqual(named([blue('b1'), green('g1'), green('g2')]), [], 'a blue one is gone')
})

test('DEP-20: the blue ones go once the client has marked them, if all green ones are in traffic', () => {
  const marked = blue('b1', {}, 'safe_to_destroy')
  assert.deepEqual(named([marked, blue('b2'), green('g1'), green('g2')]), ['b1', 'b2'])
  assert.deepEqual(named([marked, blue('b2'), green('g1')]), ['b1'], 'b2 may not be replaced')
  assert.deepEqual(named([marked, green('g1', { cordoned: true })]), [])
})

test('canaries and helpers that never ran go; what else there is stays', () => {
  const canary = machine('c', { fly_release_id: 'rel_2', fly_canary: 'true' })
  const group = { fly_process_group: 'fly_app_release_command' }
  const idle = { state: 'stopped', auto_destroy: true }
  const helper = machine('h', { fly_release_id: 'rel_2', ...group }, idle)
  const running = machine('r', { fly_release_id: 'rel_2', ...group }, { auto_destroy: true })
  const others = [
    machine('x', { fly_release_id: 'rel_1', fly_canary: 'true' }),
    machine('y', { fly_release_id: 'rel_1', ...group }, idle),
    machine('z', { fly_release_id: 'rel_2' }),
    blue('b1'),
    green('g1'),
  ]
  assert.deepEqual(named([canary, helper, running, ...others], 'rolling'), ['h', 'c'])
})
