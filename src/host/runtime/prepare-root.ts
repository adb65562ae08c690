import { Fault } from '#core/fault.ts'
import { isPlatformPath } from '#spec/machine-config.ts'
import type { StartSpec } from './driver.ts'
import { resolveImageUser, type ImageUser } from './image-user.ts'
import { makeFolderInTree, type MachineTree } from './tree.ts'
import { hasProgram, readInTree, writeInTree } from './tree-files.ts'

const defaultPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

export interface PreparedRoot {
  user: ImageUser
  env: Record<string, string>
  workdir: string
  /** Where the volumes go, free of links. */
  volumes: { source: string; path: string }[]
}

/** Fills a fresh root with what the machine is given, and checks that its command can run. */
export function prepareRoot(spec: StartSpec, root: string): PreparedRoot {
  const bare: MachineTree = { root, mounts: [] }
  const volumes = spec.mounts.map(({ source, path }) => {
    const { inside } = makeFolderInTree(bare, path)
    if (isPlatformPath(inside)) {
      throw new Fault('invalid', `a volume cannot be mounted at ${path}: it leads to ${inside}`)
    }
    return { source, path: inside }
  })
  const tree: MachineTree = { root, mounts: volumes }
  const text = (path: string, content: string) => writeInTree(tree, { path, content, mode: 0o644 })
  makeFolderInTree(tree, '/etc')
  text('/etc/hosts', spec.hosts)
  text('/etc/resolv.conf', spec.resolvConf)
  text('/etc/hostname', `${spec.hostname}\n`)
  for (const file of spec.files) writeInTree(tree, file)
  const workdir = makeFolderInTree(tree, spec.workdir || '/').inside
  const user = resolveImageUser(spec.user, {
    passwd: readInTree(tree, '/etc/passwd') ?? '',
    group: readInTree(tree, '/etc/group') ?? '',
  })
  const env: Record<string, string> = { PATH: defaultPath, HOME: user.home, ...spec.env }
  if (spec.tty) env['TERM'] ??= 'xterm'
  checkCommand(spec, tree, { path: env['PATH'] ?? '', workdir })
  return { user, env, workdir, volumes }
}

function checkCommand(
  spec: StartSpec,
  tree: MachineTree,
  where: { path: string; workdir: string },
): void {
  const program = spec.argv[0]
  if (!program) {
    throw new Fault(
      'invalid',
      'the image names no command; set ENTRYPOINT or CMD in the Dockerfile, or a process in fly.toml',
      { details: { exit_code: 127 } },
    )
  }
  if (hasProgram(tree, program, where)) return
  const place = program.includes('/') ? '' : ` on its PATH (${where.path})`
  throw new Fault(
    'invalid',
    `the image's command "${program}" was not found in the image${place}, or cannot be executed`,
    { details: { exit_code: 127 } },
  )
}
