import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { keyValues, parseArguments } from './arguments.ts'
import type { Flag } from './command.ts'
import { suggestions } from './suggest.ts'

const flags: Flag[] = [
  { name: 'app', short: 'a', kind: 'text', summary: '' },
  { name: 'ha', kind: 'switch', summary: '' },
  { name: 'yes', short: 'y', kind: 'switch', summary: '', aliases: ['auto-confirm'] },
  { name: 'env', short: 'e', kind: 'texts', summary: '' },
  { name: 'region', kind: 'list', summary: '' },
  { name: 'count', kind: 'number', summary: '' },
  { name: 'autostop', kind: 'text', bare: 'stop', summary: '' },
]
const parse = (line: string) => parseArguments(line === '' ? [] : line.split(' '), flags)

test('flags and arguments mix, and -- ends the flags', () => {
  const { args, flags: values } = parse('one -a web two --yes -- --not-a-flag -x')
  assert.deepEqual(args, ['one', 'two', '--not-a-flag', '-x'])
  assert.equal(values.text('app'), 'web')
  assert.equal(values.on('yes'), true)
})

test('a switch takes =false, and falls back when it is not given', () => {
  assert.equal(parse('--ha=false').flags.on('ha', true), false)
  assert.equal(parse('--ha').flags.on('ha', false), true)
  assert.equal(parse('').flags.on('ha', true), true)
  assert.throws(() => parse('--ha=maybe'), /--ha takes true or false, not "maybe"/)
})

test('repeated, split and numeric flags', () => {
  const values = parse('-e A=1 -e B=2,3 --region ord,ams --region fra --count 3').flags
  assert.deepEqual(values.texts('env'), ['A=1', 'B=2,3'])
  assert.deepEqual(values.texts('region'), ['ord', 'ams', 'fra'])
  assert.equal(values.number('count'), 3)
  assert.throws(() => parse('--count many'), /--count takes a number/)
})

test('a flag that may stand without its value does not take the next word', () => {
  const { args, flags: values } = parse('--autostop image')
  assert.equal(values.text('autostop'), 'stop')
  assert.deepEqual(args, ['image'])
  assert.equal(parse('--autostop=suspend').flags.text('autostop'), 'suspend')
})

test('aliases name the same flag; the last value counts', () => {
  assert.equal(parse('--auto-confirm').flags.on('yes'), true)
  assert.equal(parse('-a one -a two').flags.text('app'), 'two')
})

test('what is wrong is said, with what may be meant', () => {
  assert.throws(() => parse('--regoin ord'), /unknown flag: --regoin[^]*--region/)
  assert.throws(() => parse('-z'), /unknown flag: -z/)
  assert.throws(() => parse('--app'), /flag needs an argument: --app/)
})

test('a flag that a command does not declare cannot be asked for', () => {
  assert.throws(() => parse('').flags.text('nothing'), /does not declare/)
})

test('a value survives whatever it holds', () => {
  fc.assert(
    fc.property(fc.string(), (value) => {
      const { flags: values } = parseArguments([`--app=${value}`], flags)
      return values.text('app') === value
    }),
  )
})

test('NAME=VALUE pairs keep further equal signs', () => {
  assert.deepEqual(keyValues(['A=b=c', 'D='], '--env'), { A: 'b=c', D: '' })
  assert.throws(() => keyValues(['A'], '--env'), /--env must be given as NAME=VALUE, not "A"/)
})

test('suggestions are near and few', () => {
  assert.deepEqual(suggestions('stauts', ['status', 'apps']), ['status'])
  assert.deepEqual(suggestions('xyz', ['status', 'apps']), [])
})
