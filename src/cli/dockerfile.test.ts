import assert from 'node:assert/strict'
import { test } from 'node:test'
import { exposedPorts } from './dockerfile.ts'

const cases: [what: string, text: string, expected: number[], target?: string][] = [
  ['nothing exposed', 'FROM debian\nCMD ["x"]', []],
  ['one port', 'FROM debian\nEXPOSE 3000', [3000]],
  ['several, udp left out', 'FROM a\nEXPOSE 80/tcp 53/udp 8443\nexpose 80', [80, 8443]],
  ['a range counts from its first', 'FROM a\nEXPOSE 7000-7010', [7000]],
  ['only the last stage', 'FROM a AS build\nEXPOSE 1\nFROM b\nEXPOSE 2', [2]],
  ['and those it is built from', 'FROM a AS base\nEXPOSE 1\nFROM base\nEXPOSE 2', [2, 1]],
  ['a stage by name', 'FROM a AS dev\nEXPOSE 1\nFROM b\nEXPOSE 2', [1], 'dev'],
  ['ARG and ENV', 'FROM a\nARG PORT=4000\nENV OTHER 5000\nEXPOSE $PORT ${OTHER}', [4000, 5000]],
  ['a default in place', 'FROM a\nEXPOSE ${PORT:-6000}', [6000]],
  ['an unknown variable', 'FROM a\nEXPOSE $PORT', []],
  ['continued lines and comments', 'FROM a\n# EXPOSE 1\nEXPOSE 80 \\\n  # no\n  81', [80, 81]],
  ['a heredoc', 'FROM a\nRUN <<EOF\nEXPOSE 1\nEOF\nEXPOSE 2', [2]],
  ['a platform flag', 'FROM --platform=linux/amd64 a AS x\nEXPOSE 9\nFROM x', [9]],
  ['no port at all', 'FROM a\nEXPOSE 0 70000 http', []],
]

for (const [what, text, expected, target] of cases) {
  test(`EXPOSE: ${what}`, () => assert.deepEqual(exposedPorts(text, target), expected))
}
