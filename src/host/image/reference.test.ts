import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFault } from '#core/fault.ts'
import { formatReference, parseReference } from './reference.ts'

const digest = `sha256:${'0123456789abcdef'.repeat(4)}`

const readings: [string, string][] = [
  ['debian', 'docker.io/library/debian:latest'],
  ['debian:bookworm', 'docker.io/library/debian:bookworm'],
  ['docker.io/debian', 'docker.io/library/debian:latest'],
  ['index.docker.io/library/debian', 'docker.io/library/debian:latest'],
  ['curlimages/curl', 'docker.io/curlimages/curl:latest'],
  ['ghcr.io/owner/app:1.2', 'ghcr.io/owner/app:1.2'],
  ['localhost/app', 'localhost/app:latest'],
  ['localhost:5000/app', 'localhost:5000/app:latest'],
  ['127.0.0.1:5000/app:tag', '127.0.0.1:5000/app:tag'],
  ['[::1]:5000/app', '[::1]:5000/app:latest'],
  ['Registry/app', 'Registry/app:latest'],
  [`debian@${digest}`, `docker.io/library/debian@${digest}`],
  [`127.0.0.1:5000/a/b:t@${digest}`, `127.0.0.1:5000/a/b:t@${digest}`],
]
for (const [text, full] of readings) {
  test(`${text} means ${full}`, () => assert.equal(formatReference(parseReference(text)), full))
}

const mistakes: [string, RegExp][] = [
  ['', /name is empty/],
  ['Debian', /must be lowercase/],
  ['debian:', /the tag ""/],
  ['debian:a b', /the tag "a b"/],
  ['debian@sha256:12', /64 lowercase/],
  ['debian@md5:12', /64 lowercase/],
  ['ex ample.com/app', /not a registry host/],
  ['example.com/', /not a repository name/],
  ['example.com/a//b', /not a repository name/],
  ['https://example.com/app', /is not an image reference/],
  [`example.com/${'a'.repeat(250)}`, /longer than 255/],
]
for (const [text, reason] of mistakes) {
  test(`"${text.slice(0, 40)}" is refused with a reason`, () =>
    assert.throws(
      () => parseReference(text),
      (error) => isFault(error, 'invalid') && reason.test(error.message),
    ))
}

const word = fc.stringMatching(/^[a-z0-9]{1,8}$/)
const repository = fc
  .array(fc.tuple(word, fc.constantFrom('', '.', '_', '__', '-', '--'), word), {
    minLength: 1,
    maxLength: 3,
  })
  .map((parts) => parts.map(([a, between, b]) => `${a}${between}${b}`).join('/'))
const registry = fc.oneof(
  fc.tuple(word, word).map(([a, b]) => `${a}.${b}`),
  word.map((host) => `${host}:5000`),
  fc.constant('localhost'),
)
const reference = fc.record(
  {
    registry,
    repository,
    tag: fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}$/),
    digest: fc.stringMatching(/^[0-9a-f]{64}$/).map((hex) => `sha256:${hex}`),
  },
  { requiredKeys: ['registry', 'repository'] },
)

test('what is formatted parses to the same again', () => {
  fc.assert(
    fc.property(reference, (given) => {
      const wanted = given.tag || given.digest ? given : { ...given, tag: 'latest' }
      assert.deepEqual({ ...parseReference(formatReference(given)) }, { ...wanted })
    }),
  )
})

test('any text is either a reference that survives a round trip or a Fault', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary-ascii', maxLength: 40 }), (text) => {
      try {
        const parsed = parseReference(text)
        assert.deepEqual(parseReference(formatReference(parsed)), parsed)
      } catch (error) {
        assert.ok(isFault(error, 'invalid'), String(error))
      }
    }),
  )
})
