import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import { join } from 'node:path'
import { countsSwap, findCgroups, removeUnusedParent } from '#sys/cgroup.ts'
import { ociConfig } from '#host/runtime/bundle.ts'
import { run } from '#sys/process.ts'

/**
 * The bare steps of a container machine as a shell script would do them: squashfs and overlay mounts, a namespace with a
 * veth and addresses, the OCI runtime's create and start with the very configuration that a machine gets. No supervisor,
 * no log, no record.
 */
export interface BareContainer {
  ip4: string
  /** Everything up to the runtime's `start`. */
  start(): Promise<void>
  remove(): Promise<void>
}

const hostIp4 = '198.18.255.1'

export function bareContainer(options: {
  dir: string
  runtime: string
  squashfsPath: string
  argv: string[]
}): BareContainer {
  const { dir, runtime, squashfsPath, argv } = options
  const id = `bare${process.pid}`
  const ip4 = '198.18.255.2'
  const at = (name: string) => join(dir, name)
  for (const name of ['image', 'root', 'state']) mkdirSync(at(name), { recursive: true })
  const config = ociConfig({
    spec: {
      id,
      instanceId: id,
      squashfsPath,
      argv,
      env: {},
      user: '',
      workdir: '/',
      hostname: id,
      hosts: '',
      resolvConf: '',
      files: [],
      mounts: [],
      netnsPath: `/run/netns/${id}`,
      logFile: '',
      tty: false,
      limits: { cpus: 1, cpuKind: 'shared', memoryMb: 256 },
    },
    rootPath: at('root'),
    cgroupPath: `/hangar-bench/${id}`,
    swapIsCounted: countsSwap(findCgroups()),
    argv,
    volumes: [],
  })
  writeFileSync(at('config.json'), JSON.stringify(config))
  writeFileSync(
    at('start.sh'),
    `set -e
mount -t squashfs -o loop,ro '${squashfsPath}' image
mkdir upper work
mount -t overlay -o lowerdir=image,upperdir=upper,workdir=work overlay root
ip -batch - <<END
netns add ${id}
link add ${id} type veth peer name eth0 netns ${id}
link set ${id} up
address add ${hostIp4}/32 dev ${id}
route add ${ip4}/32 dev ${id}
END
ip -n ${id} -batch - <<END
link set lo up
link set eth0 up
address add ${ip4}/32 dev eth0
route add default via ${hostIp4} dev eth0 onlink
END
${runtime} --root state create --bundle . ${id}
${runtime} --root state start ${id}
`,
  )
  return {
    ip4,
    async start() {
      // Its output is the container's too, and a pipe would be waited for.
      const child = spawn('bash', ['start.sh'], { cwd: dir, stdio: 'ignore' })
      const [code] = (await once(child, 'exit')) as [number | null]
      if (code !== 0) throw new Error(`the bare script exited with ${code}`)
    },
    async remove() {
      await run(runtime, ['--root', at('state'), 'delete', '--force', id])
      await run('ip', ['netns', 'delete', id])
      for (const name of ['root', 'image']) await run('umount', [at(name)])
      for (const name of ['upper', 'work']) rmSync(at(name), { recursive: true, force: true })
      removeUnusedParent(findCgroups(), '/hangar-bench')
    },
  }
}

/** Resolves when a TCP port takes a connection, asked every millisecond. */
export async function untilAccepts(address: string, port: number): Promise<void> {
  for (let tries = 0; tries < 10_000; tries++) {
    const accepted = await new Promise<boolean>((resolve) => {
      const socket = net.connect(port, address)
      socket.on('connect', () => resolve(true) ?? socket.destroy())
      socket.on('error', () => resolve(false))
    })
    if (accepted) return
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
  throw new Error(`nothing listens on ${address}:${port}`)
}
