import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { busyboxPath, busyboxTree } from './busybox.ts'
import { codename, debianBase, nodeLayer, packageLayer } from './debian.ts'

/** One image that stands in for a public one of the same name. */
export interface Recipe {
  repository: string
  tags: readonly string[]
  /** The recipe whose layers come first. */
  from?: string
  /** What the result depends on beside this file's text: another answer means building again. */
  inputs(): string
  /** The tar of the recipe's own layer; `base` is that of the lower one. */
  layer(base: Buffer): Buffer
  config: Record<string, unknown>
}

const path = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const fileDigest = (file: string): string =>
  createHash('sha256').update(readFileSync(file)).digest('hex')

function addFile(root: string, name: string, content: string, mode = 0o644): void {
  mkdirSync(dirname(join(root, name)), { recursive: true })
  writeFileSync(join(root, name), content, { mode })
}

function addLink(root: string, name: string, target: string): void {
  mkdirSync(dirname(join(root, name)), { recursive: true })
  symlinkSync(target, join(root, name))
}

const nginxConf = `user www-data;
worker_processes 1;
error_log /dev/stderr notice;
pid /run/nginx.pid;
events { worker_connections 1024; }
http {
  include /etc/nginx/mime.types;
  default_type application/octet-stream;
  access_log /dev/stdout;
  sendfile on;
  keepalive_timeout 65;
  include /etc/nginx/conf.d/*.conf;
}
`
const nginxSite = `server {
  listen 80;
  listen [::]:80;
  server_name localhost;
  location / {
    root /usr/share/nginx/html;
    index index.html;
  }
}
`

export const recipes: Record<string, Recipe> = {
  busybox: {
    repository: 'library/busybox',
    tags: ['latest', '1.36'],
    inputs: () => fileDigest(busyboxPath),
    layer: () => busyboxTree('ID=busybox\nNAME="Busybox"\n'),
    config: { Env: [path], Cmd: ['sh'] },
  },
  alpine: {
    repository: 'library/alpine',
    tags: ['latest', '3.22'],
    inputs: () => fileDigest(busyboxPath),
    layer: () => busyboxTree('NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.22.0\n'),
    config: { Env: [path], Cmd: ['/bin/sh'], WorkingDir: '/' },
  },
  debian: {
    repository: 'library/debian',
    tags: ['latest', 'bookworm', 'bookworm-slim', '12'],
    inputs: codename,
    layer: () => debianBase(),
    config: { Env: [path], Cmd: ['bash'] },
  },
  node: {
    repository: 'library/node',
    tags: ['latest', '22', '22-slim', '26', 'lts'],
    from: 'debian',
    inputs: () => process.version,
    layer: nodeLayer,
    config: { Env: [path], Entrypoint: ['docker-entrypoint.sh'], Cmd: ['node'] },
  },
  python: {
    repository: 'library/python',
    tags: ['latest', '3', '3.11', '3.11-slim'],
    from: 'debian',
    inputs: () => '',
    layer: (base) =>
      packageLayer(base, ['python3'], (root) =>
        addLink(root, 'usr/local/bin/python', '/usr/bin/python3'),
      ),
    config: { Env: [path, 'LANG=C.UTF-8'], Cmd: ['python3'] },
  },
  nginx: {
    repository: 'library/nginx',
    tags: ['latest', '1.23.3', 'alpine', '1.29-bookworm'],
    from: 'debian',
    inputs: () => nginxConf + nginxSite,
    layer: (base) =>
      packageLayer(base, ['nginx-light'], (root) => {
        addFile(root, 'etc/nginx/nginx.conf', nginxConf)
        addFile(root, 'etc/nginx/conf.d/default.conf', nginxSite)
        addFile(root, 'usr/share/nginx/html/index.html', '<h1>Welcome to nginx!</h1>\n')
        addFile(root, 'docker-entrypoint.sh', '#!/bin/sh\nexec "$@"\n', 0o755)
      }),
    config: {
      Env: [path],
      Entrypoint: ['/docker-entrypoint.sh'],
      Cmd: ['nginx', '-g', 'daemon off;'],
      ExposedPorts: { '80/tcp': {} },
      StopSignal: 'SIGQUIT',
    },
  },
  curl: {
    repository: 'curlimages/curl',
    tags: ['latest', '8.7.1'],
    from: 'debian',
    inputs: () => '',
    layer: (base) =>
      packageLayer(base, ['curl'], (root) =>
        addFile(root, 'entrypoint.sh', '#!/bin/sh\nexec "$@"\n', 0o755),
      ),
    config: { Env: [path], Entrypoint: ['/entrypoint.sh'], Cmd: ['curl'], User: '100:101' },
  },
}
