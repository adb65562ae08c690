import { execFileSync } from 'node:child_process'
import { chmodSync, copyFileSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { tarOf, withFolder } from './debian.ts'

export const busyboxPath = '/bin/busybox'

/** A whole small system: Debian's static busybox, a link for each applet, and the files that programs look for. */
export function busyboxTree(osRelease: string): Buffer {
  return withFolder((root) => {
    for (const name of [
      'bin',
      'sbin',
      'usr/bin',
      'usr/sbin',
      'etc',
      'home',
      'var/spool',
      'var/www',
    ]) {
      mkdirSync(join(root, name), { recursive: true })
    }
    for (const [name, mode] of [
      ['tmp', 0o1777],
      ['root', 0o700],
    ] as const) {
      mkdirSync(join(root, name))
      chmodSync(join(root, name), mode)
    }
    copyFileSync(busyboxPath, join(root, 'bin/busybox'))
    chmodSync(join(root, 'bin/busybox'), 0o755)
    const applets = execFileSync(busyboxPath, ['--list-full'], { encoding: 'utf8' })
    for (const applet of applets.trim().split('\n')) {
      if (applet === 'bin/busybox') continue
      mkdirSync(join(root, dirname(applet)), { recursive: true })
      symlinkSync('/bin/busybox', join(root, applet))
    }
    const users = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
`
    const groups = 'root:x:0:\ndaemon:x:1:\nwww-data:x:33:\nnogroup:x:65534:\n'
    writeFileSync(join(root, 'etc/passwd'), users)
    writeFileSync(join(root, 'etc/group'), groups)
    writeFileSync(join(root, 'etc/os-release'), osRelease)
    return tarOf(root)
  })
}
