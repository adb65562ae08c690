import { spawn } from 'node:child_process'
import { mkdirSync, openSync, closeSync } from 'node:fs'
import { dirname } from 'node:path'
import { Fault } from '#core/fault.ts'
import { systemClock } from '#core/clock.ts'
import { readJsonFile, removeFile, tailOfFile, writeFileAtomic } from './files.ts'
import { isAlive, processStartTime, signalProcess, type ProcessIdentity } from './process.ts'

/**
 * A long-running child that outlives us: started in a session of its own with its output in a log file, and written down
 * as pid + start time so that whoever comes after can adopt it. The record is the truth; we are only its present reader.
 */
export interface DaemonSpec {
  name: string
  command: string
  args: readonly string[]
  env?: Record<string, string>
  cwd?: string
  uid?: number
  gid?: number
  logFile: string
  recordFile: string
  /** Descriptors handed down as 3, 4, …: listening sockets that must outlive the child. */
  fds?: readonly number[]
}

export interface DaemonRecord extends ProcessIdentity {
  name: string
  command: string
  startedAt: string
}

export function readDaemonRecord(recordFile: string): DaemonRecord | undefined {
  return readJsonFile(recordFile) as DaemonRecord | undefined
}

/** The running daemon that the record names, or undefined. */
export function findDaemon(recordFile: string): DaemonRecord | undefined {
  const record = readDaemonRecord(recordFile)
  return record && isAlive(record) ? record : undefined
}

export function startDaemon(spec: DaemonSpec): DaemonRecord {
  mkdirSync(dirname(spec.logFile), { recursive: true })
  mkdirSync(dirname(spec.recordFile), { recursive: true })
  const log = openSync(spec.logFile, 'a', 0o640)
  try {
    const child = spawn(spec.command, [...spec.args], {
      detached: true,
      stdio: ['ignore', log, log, ...(spec.fds ?? [])],
      env: spec.env ?? process.env,
      ...(spec.cwd ? { cwd: spec.cwd } : {}),
      ...(spec.uid === undefined ? {} : { uid: spec.uid }),
      ...(spec.gid === undefined ? {} : { gid: spec.gid }),
    })
    child.on('error', () => {}) // Reported below: no pid.
    child.unref()
    if (child.pid === undefined) {
      throw new Fault(
        'native_failed',
        `cannot start ${spec.name}: ${spec.command} is missing; try: hangar doctor`,
      )
    }
    const record: DaemonRecord = {
      name: spec.name,
      command: spec.command,
      pid: child.pid,
      startTime: processStartTime(child.pid) ?? 0,
      startedAt: new Date().toISOString(),
    }
    writeFileAtomic(spec.recordFile, JSON.stringify(record))
    return record
  } finally {
    closeSync(log)
  }
}

/** Waits until `probe` succeeds, racing the daemon's death; failure carries the end of its log. */
export async function daemonReady(
  spec: Pick<DaemonSpec, 'name' | 'logFile'>,
  record: DaemonRecord,
  probe: () => Promise<boolean>,
  timeoutMs: number,
): Promise<void> {
  const begun = systemClock.now()
  for (;;) {
    if (await probe().catch(() => false)) return
    const dead = !isAlive(record)
    const waitedMs = systemClock.now() - begun
    if (dead || waitedMs > timeoutMs) {
      const what = dead ? 'ended at once' : `was not ready after ${timeoutMs} ms`
      throw new Fault(
        'native_failed',
        `${spec.name} ${what}; the end of ${spec.logFile}:\n${tailOfFile(spec.logFile, 2000)}`,
      )
    }
    // Slow is often busy: it is asked less often the longer it takes, not to be kept from its work.
    await systemClock.sleep(Math.min(Math.max(25, waitedMs / 20), 500))
  }
}

/** Stops the daemon that the record names: the given signal, then SIGKILL after the grace. Removes the record. */
export async function stopDaemon(
  recordFile: string,
  signal: NodeJS.Signals = 'SIGTERM',
  graceMs = 10_000,
): Promise<void> {
  const record = findDaemon(recordFile)
  if (record) {
    signalProcess(record, signal)
    const deadline = systemClock.now() + graceMs
    while (isAlive(record)) {
      if (systemClock.now() > deadline) signalProcess(record, 'SIGKILL')
      await systemClock.sleep(20)
    }
  }
  removeFile(recordFile)
}
