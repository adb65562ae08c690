import { systemClock, type Clock } from '#core/clock.ts'
import { Fault } from '#core/fault.ts'
import type { RuntimeKind, RuntimeWish } from '#spec/runtime.ts'
import { composeDrivers, type Drivers } from './composed-driver.ts'
import type { DriverCapabilities, DriverProbe, MachineVerbs } from './driver.ts'
import { whyNoKvm } from './qemu/kvm-trial.ts'

export interface RuntimesOptions {
  drivers: Drivers
  /** What the operator wants where a machine says nothing. */
  wish: RuntimeWish
  /** Why KVM cannot work here, found out without a guest: then none is booted for `auto`. */
  whyNoKvm?: () => Promise<string | undefined>
  clock?: Clock
  log: { info(fields: object, message: string): void }
}

export interface Runtimes {
  driver: MachineVerbs
  /** What this host would take where a machine says nothing; undefined for as long as a VM is still being tried. */
  readonly usual: RuntimeKind | undefined
  /** Why, and what it costs, for people. */
  readonly note: string
  /** Finds out what really works here; a start that depends on it waits for it. Never rejects. */
  begin(): Promise<void>
  /** What a machine with this wish runs in. @throws Fault `native_failed` when that cannot work here, with what mends it */
  choose(wish: RuntimeWish): Promise<RuntimeKind>
  /** As `choose`, by what is known already. */
  expect(wish: RuntimeWish): RuntimeKind | undefined
  /** What a runtime can do; of one that this host does not have, what the weakest can. */
  capabilities(kind: RuntimeKind): DriverCapabilities
  /** What became of trying a runtime; undefined before that. */
  verdict(kind: RuntimeKind): DriverProbe | undefined
}

const nothing: DriverCapabilities = {
  suspend: 'none',
  exec: false,
  isolation: 'none',
  volumes: 'folder',
  rootSize: false,
}

/** How long a start waits to learn whether a VM boots here. */
const autoWaitMs = 30_000
/** How long a runtime that did not work is not tried again. */
const failureKeptMs = 10_000

/**
 * The runtimes of one host and the choice between them. Only a guest that booted and answered counts as a VM, and one that
 * is played by a program (TCG) only where it was asked for by name: it is several times slower.
 */
export function openRuntimes(options: RuntimesOptions): Runtimes {
  const { drivers, wish: hostWish, clock = systemClock, log } = options
  const probes = new Map<RuntimeKind, Promise<DriverProbe>>()
  const verdicts = new Map<RuntimeKind, DriverProbe>()
  const failedAt = new Map<RuntimeKind, number>()
  let usual: RuntimeKind | undefined = hostWish === 'auto' ? undefined : hostWish
  let why = ''
  let trial: Promise<string | undefined> | undefined

  function probe(kind: RuntimeKind): Promise<DriverProbe> {
    const begun = probes.get(kind) ?? probeOnce(kind)
    probes.set(kind, begun)
    return begun
  }

  /** What did not work is asked again by a later start: a program may have been installed, or PID 1 built, since. */
  function forgetFailure(kind: RuntimeKind): void {
    const at = failedAt.get(kind)
    if (at === undefined || clock.now() - at < failureKeptMs) return
    failedAt.delete(kind)
    probes.delete(kind)
  }

  async function probeOnce(kind: RuntimeKind): Promise<DriverProbe> {
    const said = (await drivers[kind]?.probe()) ?? { ok: false, note: `no ${kind} on this host` }
    // The last words of a program may have several lines.
    const verdict = { ...said, note: said.note.trim().replaceAll(/\s*\n\s*/g, '; ') }
    verdicts.set(kind, verdict)
    if (!verdict.ok) failedAt.set(kind, clock.now())
    log.info({ runtime: kind, ...verdict }, verdict.ok ? 'a runtime works' : 'a runtime does not')
    return verdict
  }

  async function chooseUsual(): Promise<RuntimeKind> {
    if (usual) return usual
    trial ??= (options.whyNoKvm ?? whyNoKvm)()
    const whyNot = drivers.qemu ? await trial : 'QEMU is not there'
    if (whyNot) {
      why = `KVM does not work here (${whyNot}), and a VM without it is taken only when it is asked for`
      return (usual = 'container')
    }
    const settled = probe('qemu').then(({ ok, accel, note }) => {
      why = ok && accel === 'kvm' ? '' : note
      return (usual = ok && accel === 'kvm' ? 'qemu' : 'container')
    })
    // A kernel that has to be fetched first may take minutes: whoever cannot wait is not kept waiting.
    const over = new AbortController()
    const tooLong = clock.sleep(autoWaitMs, over.signal).then(() => 'container' as const)
    tooLong.catch(() => {})
    return Promise.race([settled, tooLong]).finally(() => over.abort())
  }

  return {
    driver: composeDrivers(drivers),
    get usual() {
      return usual
    },
    get note() {
      if (!usual) return 'finding out whether a VM boots here'
      const said = verdicts.get(usual)?.note ?? 'being tried'
      return why ? `${said}; ${why}` : said
    },
    begin: async () => void (await probe(await chooseUsual())),
    async choose(wish) {
      const kind = wish === 'auto' ? await chooseUsual() : wish
      forgetFailure(kind)
      const { ok, note } = await probe(kind)
      if (!ok) throw new Fault('native_failed', note)
      return kind
    },
    expect: (wish) => (wish === 'auto' ? usual : wish),
    capabilities: (kind) => drivers[kind]?.capabilities ?? nothing,
    verdict: (kind) => verdicts.get(kind),
  }
}
