import { execFileSync, type ExecFileSyncOptions } from 'node:child_process'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Trees for images out of Debian's packages, with apt as this machine has it set up. */

const quiet: ExecFileSyncOptions = { stdio: ['ignore', 'ignore', 'pipe'], maxBuffer: 1 << 28 }

/** Runs `work` with a temporary folder that is removed afterwards. */
export function withFolder<T>(work: (folder: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'hangar-test-image-'))
  try {
    return work(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** The folder's contents as a tar; everything belongs to root. */
export function tarOf(folder: string, exclude: readonly string[] = []): Buffer {
  const args = ['--format=pax', '--numeric-owner', '--owner=0', '--group=0', '--sort=name']
  return execFileSync(
    'tar',
    [...args, ...exclude.map((path) => `--exclude=./${path}`), '-C', folder, '-cf', '-', '.'],
    { maxBuffer: 2 ** 31 - 1 },
  )
}

export const codename = (): string =>
  /^VERSION_CODENAME=(\w+)$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? 'bookworm'

/** The source files of this machine that offer its own release; others may not even be reachable. */
function sourceFiles(): string[] {
  const parts = '/etc/apt/sources.list.d'
  const files = [
    '/etc/apt/sources.list',
    ...readdirSync(parts)
      .filter((name) => /\.(list|sources)$/.test(name))
      .map((name) => join(parts, name)),
  ]
  return files.filter(
    (path) => existsSync(path) && readFileSync(path, 'utf8').includes(` ${codename()}`),
  )
}

/** How this machine's apt fetches: proxies and the like. */
function acquireOptions(): string {
  const dump = execFileSync('apt-config', ['dump'], { encoding: 'utf8' })
  return dump
    .split('\n')
    .filter((line) => line.startsWith('Acquire::') && !line.endsWith(' "";'))
    .join('\n')
}

/** A small Debian: minbase without manuals and translations. About 15 s. */
export function debianBase(): Buffer {
  return withFolder((folder) => {
    const tar = join(folder, 'base.tar')
    const options = join(folder, 'apt.conf')
    writeFileSync(options, acquireOptions())
    execFileSync(
      'mmdebstrap',
      [
        '--quiet',
        '--variant=minbase',
        `--aptopt=${options}`,
        '--dpkgopt=path-exclude=/usr/share/man/*',
        '--dpkgopt=path-exclude=/usr/share/locale/*',
        '--dpkgopt=path-exclude=/usr/share/doc/*',
        '--customize-hook=rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap',
        codename(),
        tar,
        ...sourceFiles(),
      ],
      quiet,
    )
    return readFileSync(tar)
  })
}

/** Downloads what the packages need beyond the base, by apt's own reckoning; the paths of the .deb files. */
function downloadPackages(base: Buffer, packages: readonly string[], folder: string): string[] {
  const archives = join(folder, 'debs')
  const lists = join(folder, 'lists')
  for (const path of [archives, lists]) mkdirSync(join(path, 'partial'), { recursive: true })
  const status = join(folder, 'status')
  writeFileSync(
    status,
    execFileSync('tar', ['-xOf', '-', './var/lib/dpkg/status'], {
      input: base,
      maxBuffer: 1 << 26,
    }),
  )
  const options = {
    'Dir::State::status': status,
    'Dir::State::lists': lists,
    'Dir::Cache::archives': archives,
    'Dir::Cache::pkgcache': '',
    'Dir::Cache::srcpkgcache': '',
    'APT::Sandbox::User': 'root',
    'Debug::NoLocking': 'true',
    'Acquire::Languages': 'none',
  }
  const flags = Object.entries(options).flatMap(([key, value]) => ['-o', `${key}=${value}`])
  execFileSync('apt-get', ['-q', ...flags, 'update'], quiet)
  execFileSync(
    'apt-get',
    ['-q', '-y', '--no-install-recommends', '--download-only', ...flags, 'install', ...packages],
    quiet,
  )
  return readdirSync(archives)
    .filter((name) => name.endsWith('.deb'))
    .map((name) => join(archives, name))
}

const mergedFolders = ['bin', 'sbin', 'lib', 'lib64']

/**
 * A layer that holds the files of packages which the base lacks. Their scripts do not run: enough for programs that need
 * no set-up, and `finish` may add what one of them does.
 */
export function packageLayer(
  base: Buffer,
  packages: readonly string[],
  finish: (root: string) => void = () => {},
): Buffer {
  return withFolder((folder) => {
    const root = join(folder, 'root')
    mkdirSync(join(root, 'usr'), { recursive: true })
    // Debian's /bin, /lib and so on are links into /usr; a layer with folders there would replace them.
    for (const name of mergedFolders) {
      mkdirSync(join(root, 'usr', name))
      symlinkSync(`usr/${name}`, join(root, name))
    }
    for (const deb of downloadPackages(base, packages, folder)) {
      const tree = execFileSync('dpkg-deb', ['--fsys-tarfile', deb], { maxBuffer: 1 << 29 })
      execFileSync('tar', ['-x', '--keep-directory-symlink', '-C', root], { input: tree })
    }
    for (const waste of ['doc', 'man', 'locale', 'lintian']) {
      rmSync(join(root, 'usr/share', waste), { recursive: true, force: true })
    }
    finish(root)
    return tarOf(root, mergedFolders)
  })
}

/** This very Node, with the libraries that the base lacks. */
export function nodeLayer(base: Buffer): Buffer {
  const present = new Set(
    execFileSync('tar', ['-tf', '-'], { input: base, encoding: 'utf8', maxBuffer: 1 << 26 })
      .split('\n')
      .map((path) => path.split('/').at(-1)),
  )
  return withFolder((root) => {
    mkdirSync(join(root, 'usr/local/bin'), { recursive: true })
    copyFileSync(process.execPath, join(root, 'usr/local/bin/node'))
    symlinkSync('node', join(root, 'usr/local/bin/nodejs'))
    const libraries = execFileSync('ldd', [process.execPath], { encoding: 'utf8' })
    for (const [, name = '', path = ''] of libraries.matchAll(/^\s*(\S+) => (\/\S+)/gm)) {
      if (present.has(name)) continue
      mkdirSync(join(root, 'usr/lib'), { recursive: true })
      copyFileSync(path, join(root, 'usr/lib', name))
    }
    const script = `#!/bin/sh
set -e
if [ "\${1#-}" != "\${1}" ] || [ -z "$(command -v "\${1}")" ]; then set -- node "$@"; fi
exec "$@"
`
    writeFileSync(join(root, 'usr/local/bin/docker-entrypoint.sh'), script, { mode: 0o755 })
    return tarOf(root)
  })
}
