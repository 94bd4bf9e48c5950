// Two origins that share a secret and one edge that has both as its upstreams, with the certificates of a stack that runs.
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, readlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { until } from './until.mjs';

const KEY = 'failover-key';
const LOG_KEPT = 4_000;

/**
 * Starts them. Returns `{edge, origins, push, stop}`: `edge` is the edge's plain address, `push` the RTMP addresses of channel
 * `both` at the two origins, each of `origins` can be killed.
 */
export async function startCluster(stack) {
  const data = dirname(stack.ready.ca);
  const folder = join(data, 'cluster');
  const programs = dirname(await readlink(`/proc/${stack.ready.pids.origin}/exe`));
  await mkdir(folder);
  const secret = join(folder, 'secret');
  await writeFile(secret, randomBytes(48).toString('base64'), { mode: 0o600 });
  const origins = [];
  const started = [];
  const stop = async () => {
    for (const one of started) one.child.kill('SIGTERM');
    await Promise.all(started.map((one) => one.exited));
  };
  try {
    for (const name of ['one', 'two']) {
      const ports = await freePorts(4);
      const file = join(folder, `${name}.toml`);
      await writeFile(file, originToml({ data, secret, folder: join(folder, name), ports }));
      const origin = start(join(programs, 'sigma-origin'), file);
      started.push(origin);
      origins.push({ ...origin, tls: ports[1], push: `rtmp://127.0.0.1:${ports[3]}/live/${KEY}` });
      await ready(ports[2], origin);
    }
    const [http, tls, ops] = await freePorts(3);
    const file = join(folder, 'edge.toml');
    await writeFile(file, edgeToml({ data, origins, ports: [http, tls, ops] }));
    const edge = start(join(programs, 'sigma-edge'), file);
    started.push(edge);
    await ready(ops, edge);
    return { edge: `http://127.0.0.1:${http}`, log: edge.log, origins, push: origins.map((one) => one.push), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

function originToml({ data, secret, folder, ports: [http, tls, ops, rtmp] }) {
  return `data_dir = "${folder}"
[http]
bind = ["127.0.0.1:${http}"]
[tls]
bind = ["127.0.0.1:${tls}"]
certificate = "${data}/tls.pem"
key = "${data}/tls.key"
client_ca = "${data}/ca.pem"
[ops]
bind = "127.0.0.1:${ops}"
[rtmp]
bind = ["127.0.0.1:${rtmp}"]
[playback]
cluster_secret_file = "${secret}"
[[channels]]
id = "both"
type = "forward"
key = "${KEY}"
part_target_ms = 500
`;
}

function edgeToml({ data, origins, ports: [http, tls, ops] }) {
  return `pop = "pop-1"
[http]
bind = ["127.0.0.1:${http}"]
[tls]
bind = ["127.0.0.1:${tls}"]
certificate = "${data}/tls.pem"
key = "${data}/tls.key"
[ops]
bind = "127.0.0.1:${ops}"
[upstream]
urls = [${origins.map((one) => `"https://127.0.0.1:${one.tls}"`).join(', ')}]
ca = "${data}/ca.pem"
certificate = "${data}/pop-1.pem"
key = "${data}/pop-1.key"
`;
}

/** Starts a server with this configuration. */
export function start(program, config) {
  const child = spawn(program, ['serve', '--config', config], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (bytes) => {
    said = (said + bytes.toString()).slice(-LOG_KEPT);
  });
  const exited = new Promise((resolve) => {
    child.once('error', resolve);
    child.once('close', resolve);
  });
  const orphaned = () => child.kill('SIGKILL');
  process.once('exit', orphaned);
  void exited.finally(() => process.off('exit', orphaned));
  return { child, exited, log: () => said };
}

/** Resolves when the server with this ops port serves. */
export async function ready(port, { log }) {
  try {
    await until(`/readyz on ${port}`, 20_000, async () => (await fetch(`http://127.0.0.1:${port}/readyz`)).ok);
  } catch (error) {
    throw new Error(`${error.message}\n${log()}`);
  }
}

export async function freePorts(count) {
  const servers = await Promise.all(Array.from({ length: count }, () => new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => resolve(server));
  })));
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
