// Garbage on every port while somebody watches: the picture goes on and every process lives.
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import { after, before, test } from 'node:test';
import { openBrowser, Watcher, watchUrl } from './lib/browser.mjs';
import { alive } from './lib/processes.mjs';
import { startStack, TCP_PORTS, UDP_PORTS } from './lib/stack.mjs';
import { bounded } from './lib/until.mjs';

/** How long one garbage connection may last before the test lets go of it. */
const LET_GO_AFTER_MS = 1_500;
const HALF_OPEN_PER_PORT = 20;
const SEED = 0x51674d41;

let stack;
let browser;

before(async () => {
  stack = await startStack();
  browser = await openBrowser();
});

after(async () => {
  await browser?.close();
  await stack?.stop();
});

test('garbage on every port disturbs nobody', async () => {
  const viewer = await Watcher.open(browser, watchUrl(stack.ready, 'demo'));
  await viewer.playing(10_000);
  const first = await viewer.played(3, 10_000);

  const tcp = await openTcpPorts();
  for (const name of ['origin', 'rtmp', 'edge', 'edge_tls']) assert.ok(name in tcp, `port ${name} accepts connections`);
  const held = Object.values(tcp).flatMap((port) => Array.from({ length: HALF_OPEN_PER_PORT }, () => halfOpen(port)));
  for (const port of Object.values(tcp)) {
    await Promise.all(payloads(port).map((bytes) => throwAt(port, bytes)));
  }
  for (const port of Object.values(UDP_PORTS)) await throwUdp(port + stack.port_offset);
  for (const socket of held) socket.destroy();

  const last = await viewer.played(5, 15_000);
  assert.equal(last.stalls, first.stalls, `stalled for ${last.stalled_ms - first.stalled_ms} ms`);
  assert.ok(last.current_time > first.current_time + 5);
  for (const pid of [stack.ready.pids.origin, ...stack.ready.pids.edges]) assert.ok(await alive(pid), `process ${pid} lives`);
  for (const base of [stack.ready.origin, stack.ready.edges[0].http]) {
    const answer = await fetch(`${base}/live/demo/index.m3u8`, { signal: AbortSignal.timeout(5_000) });
    assert.equal(answer.status, 200, base);
  }
  const newcomer = await Watcher.open(browser, watchUrl(stack.ready, 'demo'));
  await newcomer.playing(10_000);
  await newcomer.close();
  await viewer.close();
});

// The ports named by contract that this build serves.
async function openTcpPorts() {
  const open = {};
  for (const [name, port] of Object.entries(TCP_PORTS)) {
    if (await accepts(port + stack.port_offset)) open[name] = port + stack.port_offset;
  }
  return open;
}

function accepts(port) {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

function halfOpen(port) {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => undefined);
  socket.write('G');
  return socket;
}

/** Writes `bytes` and reads whatever comes until the peer closes or the time is up. A refused write is fine. */
function throwAt(port, bytes) {
  const closed = new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(bytes));
    const timer = setTimeout(() => socket.destroy(), LET_GO_AFTER_MS);
    socket.on('data', () => undefined);
    socket.on('error', () => undefined);
    socket.once('close', () => {
      clearTimeout(timer);
      resolve();
    });
  });
  return bounded('a garbage connection to end', LET_GO_AFTER_MS + 5_000, closed);
}

function throwUdp(port) {
  return new Promise((resolve) => {
    const socket = createSocket('udp4');
    socket.on('error', () => undefined);
    const random = generator(SEED ^ port);
    const datagrams = Array.from({ length: 50 }, (_, at) => noise(random, 1 + at * 28));
    let left = datagrams.length;
    for (const bytes of datagrams) {
      socket.send(bytes, port, '127.0.0.1', () => {
        left -= 1;
        if (left === 0) socket.close(resolve);
      });
    }
  });
}

function payloads(port) {
  const random = generator(SEED ^ port);
  const version = Buffer.from([3]);
  const c1 = Buffer.concat([version, Buffer.alloc(8), noise(random, 1528)]);
  const c2 = noise(random, 1536);
  // Chunk header (fmt 0, csid 2), timestamp 0, length 4, type 1 (set chunk size), stream 0, then the size.
  const chunkSize = (bytes) => Buffer.from([2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, ...u32(bytes)]);
  // A chunk that announces a 16 MB message and never sends it.
  const hugeMessage = Buffer.concat([Buffer.from([3, 0, 0, 0, 0xff, 0xff, 0xff, 20, 0, 0, 0, 0]), noise(random, 128)]);
  const hello = clientHello(random);
  const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
  return [
    Buffer.alloc(0),
    noise(random, 1),
    noise(random, 65_536),
    Buffer.alloc(65_536),
    Buffer.alloc(65_536, 0xff),
    version,
    Buffer.from([6]),
    c1.subarray(0, 700),
    c1,
    Buffer.concat([c1, c2.subarray(0, 100)]),
    Buffer.concat([c1, c2, noise(random, 8_192)]),
    Buffer.concat([c1, c2, chunkSize(10 * 1024 * 1024), hugeMessage]),
    Buffer.concat([c1, c2, chunkSize(0), noise(random, 64)]),
    Buffer.concat([c1, c2, chunkSize(0x7fffffff), hugeMessage, hugeMessage]),
    ...[1, 4, 5, 6, 40, hello.length - 1].map((length) => hello.subarray(0, length)),
    Buffer.concat([hello, noise(random, 512)]),
    preface.subarray(0, 10),
    Buffer.concat([preface, noise(random, 4_096)]),
    Buffer.concat([preface, Buffer.from([0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0])]),
    Buffer.from('GET /live/demo/index.m3u8 HTTP/1.1\r\nHost: x\r\n'),
    Buffer.from('GET /live/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n'),
    Buffer.from('GET /live/demo/%00%ff%2e%2e/x HTTP/1.1\r\nHost: x\r\n\r\n'),
    Buffer.from('POST /live/demo/index.m3u8 HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n'),
    Buffer.from('POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n'),
    Buffer.from(`GET / HTTP/1.1\r\nHost: x\r\nX: ${'a'.repeat(200_000)}\r\n\r\n`),
    Buffer.from(`GET /${'a'.repeat(100_000)} HTTP/1.1\r\nHost: x\r\n\r\n`),
  ];
}

// A well-formed TLS 1.2 ClientHello up to its random part, with a length that promises more than comes.
function clientHello(random) {
  const body = Buffer.concat([Buffer.from([3, 3]), noise(random, 32), Buffer.from([0, 0, 2, 0x13, 0x01, 1, 0])]);
  const handshake = Buffer.concat([Buffer.from([1, 0, 2, 0]), body]);
  return Buffer.concat([Buffer.from([22, 3, 1, 2, 4]), handshake]);
}

function u32(value) {
  return [(value >>> 24) & 0xff, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff];
}

/** Xorshift: the same garbage on every run, so that a failure can be looked at again. */
function generator(seed) {
  let state = seed >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state & 0xff;
  };
}

function noise(random, length) {
  return Buffer.from(Array.from({ length }, random));
}
