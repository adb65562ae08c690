import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { messageOf } from '#core/fault.ts'
import { run } from '#sys/process.ts'
import { initPath, initSource, ociConfig } from './bundle.ts'
import { countsSwap, removeCgroup, type CgroupTree } from '#sys/cgroup.ts'
import type { Found } from './finding.ts'

const candidates = ['crun', 'runc'] as const

function findProgram(name: string): string | undefined {
  const folders = (process.env['PATH'] ?? '').split(':').concat('/usr/sbin', '/usr/bin', '/sbin')
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path))
}

/** Runs PID 1 alone in a container with an empty root and every wall of a real machine. Undefined when it worked. */
async function tryRuntime(
  runtime: string,
  options: { cgroups: CgroupTree; cgroupParent: string },
): Promise<string | undefined> {
  const dir = mkdtempSync(join(tmpdir(), 'hangar-probe-'))
  const id = `probe-${process.pid}-${dir.slice(-6)}`
  const cgroupPath = `${options.cgroupParent}/${id}`
  try {
    const root = join(dir, 'root')
    mkdirSync(root)
    const config = ociConfig({
      spec: {
        id,
        instanceId: id,
        squashfsPath: '',
        argv: [],
        env: {},
        user: '',
        workdir: '/',
        hostname: 'probe',
        hosts: '',
        resolvConf: '',
        files: [],
        mounts: [],
        netnsPath: '',
        logFile: '',
        tty: false,
        limits: { cpus: 1, cpuKind: 'shared', memoryMb: 256 },
      },
      rootPath: root,
      cgroupPath,
      swapIsCounted: countsSwap(options.cgroups),
      argv: [initPath, '--version'],
      volumes: [],
    })
    writeFileSync(join(dir, 'config.json'), JSON.stringify(config))
    const args = ['--root', join(dir, 'state'), 'run', '--bundle', dir, id]
    const result = await run(runtime, args, { timeoutMs: 20_000 })
    if (result.code === 0 && /hangar init/.test(result.stdout)) return undefined
    return (result.stderr.trim() || result.stdout.trim()).slice(-500)
  } catch (error) {
    return messageOf(error)
  } finally {
    await removeCgroup(options.cgroups, cgroupPath)
    rmSync(dir, { recursive: true, force: true })
  }
}

const wall =
  'containers share the kernel of this host, a weaker wall than a VM: run only code that you trust'

const hybridAdvice =
  'to use it: mkdir -p /sys/fs/cgroup/hugetlb && mount -t cgroup -o hugetlb cgroup /sys/fs/cgroup/hugetlb'

/** The absolute path of the OCI runtime that really runs a container here, crun before runc: it starts in half the time. */
export async function chooseRuntime(options: {
  cgroups: CgroupTree
  cgroupParent: string
}): Promise<Found<string>> {
  if (!existsSync(initSource)) {
    return { note: 'containers cannot run: PID 1 of machines is not built; run scripts/setup' }
  }
  const refusals: string[] = []
  for (const name of candidates) {
    const runtime = findProgram(name)
    const refusal = runtime ? await tryRuntime(runtime, options) : 'not installed'
    if (refusal === undefined) {
      const why = refusals.length > 0 ? ` (${refusals.join('; ')})` : ''
      const note = `containers by ${name}, cgroup v${options.cgroups.version}${why}; ${wall}`
      return { found: runtime, note }
    }
    const mend = refusal.includes('hybrid mode') ? `; ${hybridAdvice}` : ''
    refusals.push(`${name} does not work here: ${refusal}${mend}`)
  }
  return { note: `containers cannot run: ${refusals.join('; ')}` }
}
