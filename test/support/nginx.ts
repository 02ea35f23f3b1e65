/**
 * A real nginx on loopback, in a temporary directory of its own.
 *
 * Offers `NGINX`, the path of the program or undefined, and `startNginx()`: serves `root` on a free port; below
 * `/slow/` at about 4 MiB a second. It can be killed and started again on the same port.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'

export const NGINX: string | undefined = find()

export interface Nginx {
  /** Such as `http://127.0.0.1:4711`. */
  readonly origin: string
  /** What it serves. */
  readonly root: string
  /** One line a request: status, range, bytes sent. */
  log(): string[]
  /** Ends it in the middle of whatever it does. */
  kill(): Promise<void>
  start(): Promise<void>
  /** Ends it and removes its directory. */
  remove(): Promise<void>
}

function find(): string | undefined {
  for (const candidate of ['nginx', '/usr/sbin/nginx', '/usr/local/sbin/nginx']) {
    try {
      execFileSync(candidate, ['-v'], { stdio: 'ignore' })
      return candidate
    } catch {}
  }
  return undefined
}

export async function startNginx(): Promise<Nginx> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'fremap-nginx-'))
  const root = path.join(directory, 'root')
  fs.mkdirSync(root)
  const port = await freePort()
  fs.writeFileSync(path.join(directory, 'nginx.conf'), configuration(directory, port))
  let child: ChildProcess | undefined
  const nginx: Nginx = {
    origin: `http://127.0.0.1:${port}`,
    root,
    log: () => fs.readFileSync(path.join(directory, 'access.log'), 'utf8').split('\n').slice(0, -1),
    kill: async () => {
      const ended = child
      child = undefined
      if (ended === undefined || ended.exitCode !== null) return
      const exited = new Promise(resolve => ended.once('exit', resolve))
      ended.kill('SIGKILL')
      await exited
    },
    start: async () => {
      child = await run(directory)
    },
    remove: async () => {
      await nginx.kill()
      fs.rmSync(directory, { recursive: true })
    }
  }
  await nginx.start()
  return nginx
}

/** One process, so that killing it is killing all of it; everything it writes lies in the directory. */
function configuration(directory: string, port: number): string {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  return `
daemon off;
master_process off;
pid ${directory}/nginx.pid;
error_log stderr notice;
events { worker_connections 128; }
http {
  log_format ranges '$status $http_range $body_bytes_sent';
  access_log ${directory}/access.log ranges;
  ${temporary.map(name => `${name}_temp_path ${directory}/${name};`).join('\n  ')}
  gzip on;
  gzip_types *;
  server {
    listen 127.0.0.1:${port};
    root ${directory}/root;
    location /slow/ {
      alias ${directory}/root/;
      limit_rate 4m;
    }
    location = /latest { return 302 /slow/file; }
  }
}
`
}

/** Resolves when it listens: it has opened its sockets before it says which event method it uses. */
function run(directory: string): Promise<ChildProcess> {
  const args = ['-p', directory, '-e', 'stderr', '-c', path.join(directory, 'nginx.conf')]
  const child = spawn(NGINX as string, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', code => reject(new Error(`nginx ended with ${code}: ${said}`)))
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text
      if (said.includes('event method')) resolve(child)
    })
  })
}

async function freePort(): Promise<number> {
  const server = net.createServer()
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as net.AddressInfo
  await new Promise(resolve => server.close(resolve))
  return port
}
