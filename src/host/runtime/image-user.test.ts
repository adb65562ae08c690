import assert from 'node:assert/strict'
import test from 'node:test'
import { resolveImageUser } from './image-user.ts'

const files = {
  passwd:
    'root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/home/web:/bin/sh\nbroken line\n7:x:70:70::/seven:\n',
  group: 'root:x:0:\nweb:x:1001:\naudio:x:29:web,other\ndisk:x:6:other\n',
}

test('a name takes its ids, its home and its groups', () => {
  const user = resolveImageUser('web', files)
  assert.deepEqual(user, { uid: 1000, gid: 1001, additionalGids: [29], home: '/home/web' })
})

test('nothing asked for is root', () => {
  assert.deepEqual(resolveImageUser('', files), {
    uid: 0,
    gid: 0,
    additionalGids: [],
    home: '/root',
  })
})

test('a number works in an image without /etc/passwd', () => {
  const empty = { passwd: '', group: '' }
  assert.deepEqual(resolveImageUser('1234:55', empty), {
    uid: 1234,
    gid: 55,
    additionalGids: [],
    home: '/',
  })
})

test('a number that the image knows takes that entry', () => {
  assert.equal(resolveImageUser('1000', files).gid, 1001)
})

test('a name made of digits comes before the number', () => {
  assert.equal(resolveImageUser('7', files).uid, 70)
})

test('an explicit group replaces the groups of the user', () => {
  assert.deepEqual(resolveImageUser('web:disk', files).additionalGids, [])
  assert.equal(resolveImageUser('web:disk', files).gid, 6)
})

test('an unknown name says what is missing', () => {
  assert.throws(() => resolveImageUser('ghost', files), /no user "ghost" in \/etc\/passwd/)
  assert.throws(() => resolveImageUser('web:ghost', files), /no group "ghost" in \/etc\/group/)
})
