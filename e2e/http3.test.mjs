// HTTP/3 from outside: Chromium plays over QUIC alone, and an independent client (aioquic) gets the same bytes.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { openQuicBrowser, Watcher } from './lib/browser.mjs';
import { h2Get, h3Get } from './lib/http3.mjs';
import { startStack } from './lib/stack.mjs';

let stack;

before(async () => {
  stack = await startStack();
});

after(async () => {
  await stack?.stop();
});

const localhost = (url) => url.replace('127.0.0.1', 'localhost');

test('Chromium plays 20 s over QUIC without a stall', async () => {
  const edge = localhost(stack.ready.edges[0].https);
  const context = await openQuicBrowser(edge);
  try {
    const viewer = await Watcher.in(context, `${edge}/watch/demo`);
    const first = await viewer.playing(20_000);
    const last = await viewer.played(20, 40_000, first);
    assert.equal(last.transport, 'h3');
    assert.equal(last.stalls, 0, `stalled ${last.stalls} times, ${last.stalled_ms} ms in all`);
    assert.ok(last.latency_s < 4, `latency ${last.latency_s} s`);
    assert.deepEqual(viewer.faults, []);
    await viewer.screenshot('http3');
  } finally {
    await context.close();
  }
});

for (const [who, base] of [['the edge', (ready) => ready.edges[0].https], ['the origin', (ready) => ready.origin_tls]]) {
  test(`an independent client gets from ${who} what HTTP/2 gets`, async () => {
    const url = localhost(base(stack.ready));
    const multivariant = `${url}/live/demo/index.m3u8`;
    const over2 = await h2Get(multivariant);
    assert.match(over2.headers['alt-svc'], /^h3=":\d+"; ma=\d+$/);
    assert.equal(new URL(url).port, /h3=":(\d+)"/.exec(over2.headers['alt-svc'])[1]);
    const media = new URL(/^[^#].*$/m.exec(over2.text)[0], over2.url).href;
    const part = new URL(/EXT-X-PART:.*URI="([^"]+)"/.exec((await h2Get(media)).text)[1], media).href;
    for (const object of [multivariant, part]) {
      const [two, three] = [await h2Get(object), await h3Get(object)];
      assert.equal(three.status, 200);
      assert.equal(three.sha256, two.sha256, object);
      for (const name of ['content-type', 'cache-control', 'cmsd-static', 'access-control-allow-origin']) {
        assert.equal(three.headers[name], two.headers[name], name);
      }
    }
    const absent = await h3Get(`${url}/live/demo/v999/1.0.m4s`);
    assert.equal(absent.status, 404);
    assert.equal(absent.headers['access-control-allow-origin'], '*');
    const returning = await h3Get(part, { early: true });
    assert.equal(returning.early_data, true, 'the second connection asked before its handshake ended');
    assert.equal(returning.status, 200);
  });
}
