import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BuildStory, lineOfInstruction, visibleLine } from './docker-output.ts'

const dockerfile = [
  'FROM debian AS base',
  '',
  '# tools',
  'RUN apt-get update \\',
  '    # the compiler',
  '    && apt-get install -y gcc',
  'COPY . /src',
  'FROM base',
  'RUN make   all',
].join('\n')

test('an instruction is found by its line, also when it is continued over several', () => {
  assert.equal(lineOfInstruction(dockerfile, 'RUN apt-get update     && apt-get install -y gcc'), 4)
  assert.equal(lineOfInstruction(dockerfile, 'COPY . /src'), 7)
  assert.equal(lineOfInstruction(dockerfile, 'RUN make all'), 9)
  assert.equal(
    lineOfInstruction(dockerfile, 'load metadata for docker.io/library/debian:latest'),
    1,
  )
  assert.equal(lineOfInstruction(dockerfile, 'RUN make none'), undefined)
})

test('a failing step is told with its line, its last words and its exit code', () => {
  const story = new BuildStory()
  for (const line of [
    '#4 [2/2] RUN make   all',
    '#4 sha256:331ee5d3cf504bba',
    '#4 0.072 cc -o app',
    '#4 0.100 app.c:3: error: expected ;',
    '#4 ERROR: executor failed running [/bin/sh -c make all]: exit code: 2',
    '------',
    ' > [2/2] RUN make   all:',
    '------',
    'executor failed running [/bin/sh -c make all]: exit code: 2',
  ]) {
    story.take(line)
  }
  assert.equal(
    story.failure({ name: 'Dockerfile', text: dockerfile }),
    'Dockerfile line 9: RUN make   all: exit code 2; it said:\ncc -o app\napp.c:3: error: expected ;',
  )
})

test('a Dockerfile that does not parse is told in BuildKit’s words, with its line', () => {
  const story = new BuildStory()
  story.take('#2 copy /context /')
  story.take('#2 DONE 0.1s')
  story.take(
    'failed to solve with frontend dockerfile.v0: failed to create LLB definition: dockerfile parse error line 3: unknown instruction: BADCMD',
  )
  assert.equal(
    story.failure({ name: 'Dockerfile', text: 'x' }),
    'Dockerfile: dockerfile parse error line 3: unknown instruction: BADCMD',
  )
})

test('digests and blank lines are not shown', () => {
  assert.equal(visibleLine('#3 sha256:bfa206adabadda3ea0e3c0de1bb80fb9d7654701'), undefined)
  assert.equal(visibleLine('  '), undefined)
  assert.equal(visibleLine('#3 [1/1] COPY hello /hello '), '#3 [1/1] COPY hello /hello')
})
