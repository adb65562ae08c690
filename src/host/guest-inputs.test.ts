import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { commandOf, splitWords } from './command.ts'
import { hostsFile, resolvConf } from './guest-files.ts'

const image = { entrypoint: ['/entry'], cmd: ['serve'] }

test('MCH-67: which command runs', () => {
  const run = (init?: { [key: string]: string[] }) =>
    commandOf({ image: 'x', ...(init ? { init } : {}) }, image)
  assert.deepEqual(run(), ['/entry', 'serve'])
  assert.deepEqual(run({ cmd: ['worker'] }), ['/entry', 'worker'])
  assert.deepEqual(run({ entrypoint: ['/mine'] }), ['/mine'])
  assert.deepEqual(run({ entrypoint: ['/mine'], cmd: ['a'] }), ['/mine', 'a'])
  assert.deepEqual(run({ exec: ['/bin/sleep', 'inf'], cmd: ['a'] }), ['/bin/sleep', 'inf'])
  assert.throws(() => commandOf({ image: 'x' }, { entrypoint: [], cmd: [] }), /names no command/)
})

test('words are split like a shell splits them', () => {
  assert.deepEqual(splitWords(`a "b c" 'd "e' f\\ g ""`), ['a', 'b c', 'd "e', 'f g', ''])
  assert.throws(() => splitWords('a "b'), /open " quote/)
  fc.assert(
    fc.property(fc.array(fc.string()), (words) => {
      const quoted = words.map((word) => `'${word.replaceAll("'", `'\\''`)}'`)
      assert.deepEqual(splitWords(quoted.join(' ')), words)
    }),
  )
})

test('the name servers of the host that are not loopback, also behind a local resolver', () => {
  const files: Record<string, string> = {
    '/etc/resolv.conf': 'nameserver 127.0.0.53\noptions edns0\n',
    '/run/systemd/resolve/resolv.conf':
      '# x\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch lan',
  }
  assert.equal(
    resolvConf((path) => files[path]),
    'nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch lan\n',
  )
  assert.equal(
    resolvConf(() => undefined),
    '',
  )
})

test('MCH-95: the hosts file names the machine', () => {
  const text = hostsFile({ hostname: 'm1', ip4: '10.0.0.2', ip6: 'fdaa:0:1:0:1:0:2:2' })
  assert.match(text, /^fdaa:0:1:0:1:0:2:2 fly-local-6pn$/m)
  assert.match(text, /^10\.0\.0\.2 fly-global-services$/m)
  assert.match(text, /^fdaa:0:1:0:1:0:2:2 m1$/m)
})
