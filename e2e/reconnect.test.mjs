// The encoder dies without a word and comes back within the stop timeout.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { openBrowser, Watcher, watchUrl } from './lib/browser.mjs';
import { clip } from './lib/media.mjs';
import { discontinuities, mediaPlaylist, tip, variantsOf } from './lib/playlist.mjs';
import { pushFile } from './lib/publish.mjs';
import { startStack } from './lib/stack.mjs';
import { until } from './lib/until.mjs';

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

test('the page goes on without reloading; numbers continue across exactly one discontinuity', async () => {
  const film = await clip();
  const address = stack.ready.publish.bench.rtmp;
  const first = pushFile(film, address);
  let second;
  try {
    const viewer = await Watcher.open(browser, watchUrl(stack.ready, 'bench'));
    await viewer.playing(20_000);
    await viewer.played(6, 20_000);
    await viewer.page.evaluate(() => {
      window.__mark = 'the same window';
    });
    const [variant] = await variantsOf(stack.ready.edges[0].http, 'bench');

    await first.kill();
    // What is still under way at the moment of the crash arrives; the last state before the new encoder is the one kept.
    const before = await mediaPlaylist(variant.url);
    second = pushFile(film, address);
    const after = await until('the new encoder in the playlist', 20_000, async () => {
      const now = await mediaPlaylist(variant.url);
      return discontinuities(now) > discontinuities(before) && tip(now) > tip(before) + 2_000 ? now : undefined;
    });

    assert.equal(discontinuities(after), discontinuities(before) + 1);
    assert.equal(after.ended, false);
    assertSameNumbers(before, after);
    const at = after.segments.findIndex((one) => one.discontinuity);
    assert.ok(at !== 0, 'the discontinuity is in the playlist with the segment before it');

    const resumed_ms = Date.now();
    const back = await viewer.until('the new encoder on screen', 20_000, (s) => s.state === 'playing' && s.playing_date_ms > resumed_ms - 4_000);
    const later = await viewer.played(10, 30_000, back);
    assert.equal(later.stalls, back.stalls, 'no stall once it is back');
    assert.ok(later.current_time > back.current_time);
    assert.equal(await viewer.page.evaluate(() => window.__mark), 'the same window');
    assert.equal(viewer.navigations, 1);
    assert.ok(later.latency_s < 6, `latency ${later.latency_s} s after the reconnect`);

    const final = await mediaPlaylist(variant.url);
    assert.equal(discontinuities(final), discontinuities(before) + 1, 'still exactly one');
    await viewer.close();
  } finally {
    await first.kill();
    await second?.stop();
  }
});

// One MSN has one address for ever, and numbers grow by one.
function assertSameNumbers(before, after) {
  const known = new Map(before.segments.map((one) => [one.msn, one.uri]));
  const shared = after.segments.filter((one) => known.has(one.msn));
  assert.ok(shared.length > 0, 'the two playlists overlap');
  for (const one of shared) assert.equal(one.uri, known.get(one.msn), `MSN ${one.msn}`);
  assert.equal(new Set(after.segments.map((one) => one.uri)).size, after.segments.length, 'no address twice');
}
