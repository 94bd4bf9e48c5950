// A real film, pushed by ffmpeg in real time, watched through the edge.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { openBrowser, Watcher, watchUrl } from './lib/browser.mjs';
import { clip } from './lib/media.mjs';
import { pushFile } from './lib/publish.mjs';
import { startStack } from './lib/stack.mjs';

let stack;
let browser;

before(async () => {
  stack = await startStack({ source: false });
  browser = await openBrowser();
});

after(async () => {
  await browser?.close();
  await stack?.stop();
});

test('a page opened before the broadcast starts by itself and plays 20 s without a stall', async () => {
  const film = await clip();
  const viewer = await Watcher.open(browser, watchUrl(stack.ready, 'bench'));
  await viewer.until('the page to say that the channel is not live', 10_000, (s) => s.state === 'offline');

  const push = pushFile(film, stack.ready.publish.bench.rtmp);
  try {
    const first = await viewer.playing(20_000);
    const last = await viewer.played(20, 40_000, first);
    assert.equal(last.stalls, 0, `stalled ${last.stalls} times, ${last.stalled_ms} ms in all`);
    assert.equal(last.rendition?.height, 720);
    assert.ok(last.total_frames - first.total_frames > 20 * 24 * 0.8, `only ${last.total_frames - first.total_frames} frames in 20 s`);
    assert.ok(last.latency_s > 0 && last.latency_s < 4, `latency ${last.latency_s} s`);
    assert.equal(last.transport, 'h2');
    assert.deepEqual(viewer.faults, []);
    await viewer.screenshot('play');
    assert.ok(push.running(), `ffmpeg ended:\n${push.log()}`);
  } finally {
    await push.stop();
    await viewer.close();
  }
});
