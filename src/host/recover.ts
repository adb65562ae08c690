import { messageOf } from '#core/fault.ts'
import { announce, apply, type Agent } from './agent.ts'
import { beginLife } from './create.ts'
import { workOf } from './machine-life.ts'
import { superviseRun } from './run.ts'
import { restsOnDisk } from './runtime-choice.ts'
import type { MachineRecord } from './store/index.ts'
import { carryOn, operate } from './work.ts'

/**
 * Takes over every machine of this host: what runs is adopted, what was under way goes on, what ended meanwhile is told,
 * what the host took down with itself starts again. No machine of ours that is found running is ended. Resolves when every machine
 * is announced; starts and stops that go on do so behind it.
 */
export async function recoverMachines(agent: Agent): Promise<void> {
  const records = [...agent.store.machines.all()].filter((record) => record.destroyedAt === null)
  for (const record of records) {
    try {
      await recoverOne(agent, record)
    } catch (error) {
      // One machine that cannot be taken over must not keep the others waiting.
      agent.log.error(
        { machine: record.id, error: messageOf(error) },
        'could not recover a machine',
      )
    }
  }
  await endUnknown(agent, new Set(records.map(({ id }) => id)))
  const leftovers = records.filter((record) => record.run > 0).map((record) => record.id)
  await agent.net
    .keepOnly(leftovers)
    .catch((error: unknown) =>
      agent.log.warn({ error: messageOf(error) }, 'could not clear up left networks'),
    )
}

/** What runs here, or left a trace, and is no machine of ours any more: nobody could ever stop it. */
async function endUnknown(agent: Agent, known: ReadonlySet<string>): Promise<void> {
  const traces = await agent.driver.list()
  for (const id of traces.filter((trace) => !known.has(trace))) {
    try {
      await agent.driver.destroy(id)
      agent.log.warn({ machine: id }, 'what was left of a machine that is no more was removed')
    } catch (error) {
      agent.log.error({ machine: id, error: messageOf(error) }, 'what is left of it stays')
    }
  }
}

async function recoverOne(agent: Agent, record: MachineRecord): Promise<void> {
  const { id, life } = record
  announce(agent, record)
  if (workOf(life.state)) {
    const goOn = async () => {
      await carryOn(agent, id)
      await startWithHost(agent, id)
    }
    agent.queue.push(id, goOn).catch((error) => {
      agent.log.error({ machine: id, error: messageOf(error) }, 'the work on a machine failed')
    })
  } else if (life.state === 'created') {
    beginLife(agent, record)
  } else if (life.state === 'started') {
    await adopt(agent, record)
  } else if (await lostFrozen(agent, record)) {
    // What was in memory is lost with the host's reboot: a stopped machine is what is left.
    const halt = { signal: 'SIGKILL', timeoutMs: 0, drain: false }
    await operate(agent, id, () => apply(agent, record, { type: 'stop', halt }))
  } else {
    void agent.queue.push(id, () => startWithHost(agent, id))
  }
}

/** One whose memory is on the disk rests on without it too: its start finds out, and keeps its root (MCH-42). */
async function lostFrozen(agent: Agent, record: MachineRecord): Promise<boolean> {
  if (record.life.state !== 'suspended' || restsOnDisk(agent, record)) return false
  return (await agent.driver.recover(record.id)) !== 'running'
}

/** Starts what was stopped only because the host was taken down. Runs inside the machine's queue. */
async function startWithHost(agent: Agent, id: string): Promise<void> {
  const record = agent.store.machines.get(id)
  if (!record.startWithHost || record.life.state !== 'stopped') return
  const patch = { startWithHost: false, restarts: [] }
  const events = [{ type: 'start', status: 'starting', source: 'flyd' } as const]
  apply(agent, record, { type: 'start', revive: true }, { patch, events })
  await carryOn(agent, id)
}

async function adopt(agent: Agent, record: MachineRecord): Promise<void> {
  const found = await agent.driver.recover(record.id)
  if (found !== undefined) {
    superviseRun(agent, record, carryOn)
    return
  }
  // Nothing is known of it any more, as after a reboot of the machine under us: that is an exit like any other.
  const message = 'The host was restarted and the machine with it'
  agent.spool.say(record.id, { provider: 'runner', level: 'warn', message })
  const policy = record.config.restart?.policy || 'on-failure'
  const restarts = policy !== 'no' && policy !== 'never'
  await operate(agent, record.id, () => {
    const now = agent.store.machines.get(record.id)
    if (now.life.state !== 'started' || now.instanceId !== record.instanceId) return
    apply(agent, now, { type: 'exited', restartInMs: restarts ? 0 : null })
  })
}

/** Compares what is written down with what runs: an end that nobody told is told now. */
export async function verifyRuns(agent: Agent): Promise<void> {
  for (const { id } of agent.store.machines.all()) {
    if (agent.store.machines.find(id)?.life.state !== 'started') continue
    if ((await agent.driver.recover(id)) === 'running') continue
    const record = agent.store.machines.find(id)
    if (record?.life.state === 'started' && agent.mode === 'open') await adopt(agent, record)
  }
}
