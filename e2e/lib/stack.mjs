// A running Sigma Live of its own: ./scripts/run as a child process, on ports nobody else uses, with a data folder that
// goes away. Stopping it checks what stopping promises.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createWriteStream, watch } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { alive, descendants } from './processes.mjs';
import { bounded, until } from './until.mjs';

const RUN = process.env.SIGMA_RUN ?? fileURLToPath(new URL('../../scripts/run', import.meta.url));
/** From start to serving. A first run also builds, so it may be raised from outside. */
const READY_WITHIN_MS = Number(process.env.SIGMA_READY_WITHIN_MS ?? 60_000);
const STOP_WITHIN_MS = 20_000;
const STDERR_KEPT = 4_000;

export const TCP_PORTS = { origin: 7070, origin_tls: 7443, rtmp: 1935, rtmps: 1936, origin_ops: 7071, edge_tls: 8443, edge: 8080, edge_ops: 8081 };
export const UDP_PORTS = { srt: 8890, origin_quic: 7443, edge_quic: 8443 };

/**
 * Starts a stack and waits until it serves. `edges`: how many; `source`: with the test source.
 * Returns `{ready, port_offset, started_ms, ready_ms, log, stop}`: `ready` is the ready file's object, `started_ms` and
 * `ready_ms` are wall times, `log` the path of what it wrote.
 */
export async function startStack({ edges = 1, source = true } = {}) {
  const folder = await mkdtemp(join(tmpdir(), 'sigma-e2e-'));
  const port_offset = await freeOffset(edges);
  const readyFile = join(folder, 'ready.json');
  const log = join(folder, 'run.log');
  const args = ['--ready-file', readyFile, '--port-offset', String(port_offset), '--data', join(folder, 'data'), '--edges', String(edges)];
  if (!source) args.push('--no-source');

  const started_ms = Date.now();
  const child = spawn(RUN, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const tail = keepOutput(child, log);
  const exited = new Promise((resolve) => {
    child.once('exit', (code, signal) => resolve({ code, signal }));
    child.once('error', (error) => resolve({ code: null, signal: null, error }));
  });
  const orphaned = () => child.kill('SIGTERM');
  process.once('exit', orphaned);

  try {
    const ready = await bounded(`${RUN} to serve`, READY_WITHIN_MS, Promise.race([
      readyObject(readyFile),
      exited.then(({ code, signal, error }) => {
        throw new Error(`${RUN} ended before it served (${error ?? signal ?? code}):\n${tail()}`);
      }),
    ]));
    const stop = () => stopStack({ child, exited, ready, folder, tail, orphaned });
    return { ready, port_offset, started_ms, ready_ms: Date.now(), log, child, stop };
  } catch (error) {
    child.kill('SIGTERM');
    await bounded('the failed stack to end', STOP_WITHIN_MS, exited).catch(() => child.kill('SIGKILL'));
    throw new Error(`${error.message}\n${tail()}`);
  }
}

/** A stack that somebody else started, by its ready file; stopping it is left to them. */
export async function attachStack(readyFile) {
  const ready = JSON.parse(await readFile(readyFile, 'utf8'));
  return { ready, port_offset: undefined, log: undefined, stop: async () => undefined };
}

async function stopStack({ child, exited, ready, folder, tail, orphaned }) {
  const named = [ready.pids.origin, ...(ready.pids.edges ?? [])];
  const below = (await descendants(child.pid)).map((one) => one.pid);
  const everyone = [...new Set([...named, ...below])];
  child.kill('SIGTERM');
  try {
    const { code, signal } = await bounded('the stack to stop after SIGTERM', STOP_WITHIN_MS, exited);
    assert.deepEqual({ code, signal }, { code: 0, signal: null }, `run did not stop cleanly:\n${tail()}`);
    await until('every process of the stack to be gone', 5_000, async () => {
      const left = [];
      for (const pid of everyone) if (await alive(pid)) left.push(pid);
      return left.length === 0;
    });
  } finally {
    process.off('exit', orphaned);
    child.kill('SIGKILL');
    for (const pid of everyone) if (await alive(pid)) process.kill(pid, 'SIGKILL');
    if (!process.env.SIGMA_KEEP) await rm(folder, { recursive: true, force: true });
  }
}

function keepOutput(child, path) {
  const file = createWriteStream(path);
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (bytes) => {
      file.write(bytes);
      text = (text + bytes.toString()).slice(-STDERR_KEPT);
    });
  }
  child.once('close', () => file.end());
  return () => text;
}

// The watcher is set up before the first look, so a file written in between is not missed. A half-written one does not
// parse and is looked at again with the next event.
function readyObject(path) {
  return new Promise((resolve, reject) => {
    const look = () =>
      readFile(path, 'utf8').then((text) => {
        try {
          const ready = JSON.parse(text);
          watcher.close();
          resolve(ready);
        } catch {
          // Not whole yet.
        }
      }, () => undefined);
    const watcher = watch(dirname(path), (_, name) => {
      if (name === null || name === basename(path)) void look();
    });
    watcher.unref();
    watcher.once('error', reject);
    void look();
  });
}

/** A port offset with every port of the stack free and below the range that the system hands out by itself. */
async function freeOffset(edges) {
  const first = 11_000 + (process.pid % 40) * 250;
  for (let step = 0; step < 40; step += 1) {
    const offset = 11_000 + ((first - 11_000 + step * 250) % 10_000);
    if (await allFree(offset, edges)) return offset;
  }
  throw new Error('no free range of ports between 11000 and 31000');
}

async function allFree(offset, edges) {
  const tcp = Object.entries(TCP_PORTS).flatMap(([name, port]) => spread(name, port + offset, edges));
  const udp = Object.entries(UDP_PORTS).flatMap(([name, port]) => spread(name, port + offset, edges));
  for (const port of tcp) if (!(await canBindTcp(port))) return false;
  for (const port of udp) if (!(await canBindUdp(port))) return false;
  return true;
}

function spread(name, port, edges) {
  return name.startsWith('edge') ? Array.from({ length: edges }, (_, k) => port + 100 * k) : [port];
}

function canBindTcp(port) {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

function canBindUdp(port) {
  return new Promise((resolve) => {
    const socket = createSocket('udp4');
    socket.once('error', () => resolve(false));
    socket.bind(port, '127.0.0.1', () => socket.close(() => resolve(true)));
  });
}
