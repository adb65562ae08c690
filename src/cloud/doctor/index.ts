import pc from 'picocolors'
import { loadConfig } from '../config.ts'
import type { Home } from '../home.ts'
import { readState } from '../state.ts'
import { checkCloud } from './cloud.ts'
import type { Finding } from './finding.ts'
import { checkKernel } from './kernel.ts'
import { checkNetwork } from './network.ts'
import { checkInit, checkNode, checkPrograms, checkRoot } from './programs.ts'
import { checkRoom } from './room.ts'
import { checkRuntime } from './runtime.ts'

/**
 * Looks at this machine and says what is there, what is missing, what that costs and how to mend it. Changes nothing but
 * may load kernel modules. Resolves with the exit code: 1 when something that a cloud needs is missing.
 */
export async function doctor(options: {
  home: Home
  json: boolean
  out?: NodeJS.WritableStream
}): Promise<number> {
  const { home, json, out = process.stdout } = options
  const findings = await examine(home)
  if (json) out.write(`${JSON.stringify(findings, null, 2)}\n`)
  else for (const finding of findings) out.write(lineOf(finding))
  return findings.some((finding) => finding.state === 'fail') ? 1 : 0
}

async function examine(home: Home): Promise<Finding[]> {
  const kept = readState(home)
  const config = loadConfig(home, kept?.overrides ?? {})
  return [
    ...checkPrograms(),
    checkInit(),
    checkNode(),
    checkRoot(),
    ...(await checkKernel()),
    ...(await checkNetwork({ config, cloudKept: kept !== undefined })),
    ...checkRoom(home),
    ...(await checkRuntime(home, config)),
    ...(await checkCloud(home, config)),
  ]
}

function lineOf(finding: Finding): string {
  const { name, state, found, cost, remedy } = finding
  const mark = { ok: pc.green('ok  '), warn: pc.yellow('warn'), fail: pc.red('fail') }[state]
  const indent = ' '.repeat(21)
  const more = [cost && `costs: ${cost}`, remedy && `mend:  ${remedy}`].filter(Boolean)
  return `${mark} ${name.padEnd(15)} ${found}\n${more.map((line) => `${indent}${line}\n`).join('')}`
}
