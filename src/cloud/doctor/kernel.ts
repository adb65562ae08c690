import { existsSync } from 'node:fs'
import { readTextFile } from '#sys/files.ts'
import { run } from '#sys/process.ts'
import { fail, ok, warn, type Finding } from './finding.ts'

/** From /proc/self/mountinfo and the controllers of the cgroup2 mount. Pure. */
export function judgeCgroups(mountinfo: string, unifiedControllers: string): Finding {
  const mounts = mountinfo.split('\n').map((line) => {
    const [before = '', after = ''] = line.split(' - ')
    return { point: before.split(' ')[4] ?? '', type: after.split(' ')[0], options: after }
  })
  const v2 = mounts.find((mount) => mount.type === 'cgroup2')
  const v1 = mounts.filter((mount) => mount.type === 'cgroup')
  const controllers = unifiedControllers.split(/\s+/).filter(Boolean)
  const needed = ['cpu', 'memory']
  if (v1.length === 0 && v2) {
    const missing = needed.filter((name) => !controllers.includes(name))
    return missing.length === 0
      ? ok('cgroups', 'v2')
      : fail(
          'cgroups',
          `v2 without ${missing.join(' and ')}`,
          'the limits of machines cannot be kept',
          'boot without cgroup_disable= on the kernel command line',
        )
  }
  const has = (name: string) =>
    v1.some(
      (mount) => mount.options.split(/[ ,]/).includes(name) || mount.point.endsWith(`/${name}`),
    )
  const missing = needed.filter((name) => !has(name))
  if (missing.length > 0) {
    return fail(
      'cgroups',
      v1.length === 0 ? 'not mounted' : `v1 without ${missing.join(' and ')}`,
      'the limits of machines cannot be kept',
      'mount the cgroup controllers (systemd does it at boot)',
    )
  }
  if (controllers.length > 0) {
    return warn(
      'cgroups',
      `hybrid: v1, and v2 with ${controllers.join(', ')}`,
      'crun refuses this mixture: machines run by runc, which starts them about 20 ms later',
      controllers.join() === 'hugetlb'
        ? 'hangar up mends it where the kernel lets it; or boot with systemd.unified_cgroup_hierarchy=1'
        : `boot with systemd.unified_cgroup_hierarchy=1, or mount ${controllers[0]} as v1`,
    )
  }
  return ok('cgroups', 'v1')
}

function checkCgroups(): Finding {
  const mountinfo = readTextFile('/proc/self/mountinfo') ?? ''
  const point = /^(?:\S+ ){4}(\S+) .* - cgroup2 /m.exec(mountinfo)?.[1]
  return judgeCgroups(mountinfo, (point && readTextFile(`${point}/cgroup.controllers`)) || '')
}

/** File systems that machines are made of; a module that is not loaded yet counts if it can be. */
async function checkFileSystems(): Promise<Finding[]> {
  const needed = { overlay: 'writable roots', squashfs: 'images', ext4: 'volumes' }
  const findings: Finding[] = []
  for (const [name, use] of Object.entries(needed)) {
    const listed = () =>
      new RegExp(`\\b${name}$`, 'm').test(readTextFile('/proc/filesystems') ?? '')
    if (!listed()) await run('modprobe', [name]).catch(() => {})
    if (!listed()) {
      findings.push(
        fail(
          name,
          'not in this kernel',
          `no ${use}: no machine can run`,
          'use Debian’s own kernel',
        ),
      )
    }
  }
  return findings.length > 0 ? findings : [ok('file systems', Object.keys(needed).join(', '))]
}

function checkLoop(): Finding {
  return existsSync('/dev/loop-control')
    ? ok('loop devices', '/dev/loop-control')
    : fail(
        'loop devices',
        'no /dev/loop-control',
        'images and volumes cannot be mounted',
        'modprobe loop; in a container: give it the loop devices',
      )
}

export async function checkKernel(): Promise<Finding[]> {
  return [checkCgroups(), ...(await checkFileSystems()), checkLoop()]
}
