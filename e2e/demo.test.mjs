// The built-in test source, watched through the edge on a desktop and on a phone.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { openBrowser, PHONE, Watcher, watchUrl } from './lib/browser.mjs';
import { installClockReader } from './lib/clock_code.mjs';
import { percentile } from './lib/numbers.mjs';
import { startStack } from './lib/stack.mjs';
import { until } from './lib/until.mjs';

/** How far the burned-in clock and PROGRAM-DATE-TIME may differ for the same frame. */
const CLOCK_TOLERANCE_MS = 150;

describe('demo channel', { concurrency: false }, () => {
  let stack;
  let browser;

  before(async () => {
    browser = await openBrowser();
    stack = await startStack();
  });

  after(async () => {
    await browser?.close();
    await stack?.stop();
  });

  test('plays within 5 s of being ready', async () => {
    const viewer = await Watcher.open(browser, watchUrl(stack.ready, 'demo'));
    await viewer.playing(Math.max(1, stack.ready_ms + 5_000 - Date.now()));
    await viewer.close();
  });

  for (const [name, options] of [['desktop', {}], ['phone', { viewport: PHONE, phone: true }]]) {
    test(`${name}: plays at low latency and the page fits`, async () => {
      const viewer = await Watcher.open(browser, watchUrl(stack.ready, 'demo'), options);
      const first = await viewer.playing(10_000);
      const last = await viewer.played(15, 30_000, first);
      assert.equal(last.stalls, 0, `stalled ${last.stalls} times, ${last.stalled_ms} ms in all`);
      assert.ok(last.latency_s < 4, `latency ${last.latency_s} s`);
      const width = await viewer.page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
      assert.ok(width[0] <= width[1], `the page is ${width[0]} px wide in a window of ${width[1]} px`);
      assert.deepEqual(viewer.faults, []);
      await viewer.screenshot(`demo-${name}`);
      await viewer.close();
    });
  }

  test('the clock in the picture is the one in PROGRAM-DATE-TIME', async () => {
    const viewer = await Watcher.open(browser, watchUrl(stack.ready, 'demo'));
    await viewer.playing(10_000);
    await installClockReader(viewer.page);
    await viewer.page.evaluate(() => window.__clock.watch(200));
    await viewer.played(5, 15_000);
    const samples = await viewer.page.evaluate(() => window.__clock.take());
    const read = samples.filter((one) => typeof one.burned_ms === 'number');
    assert.ok(read.length >= samples.length * 0.9, `only ${read.length} of ${samples.length} frames could be read`);
    const differences = read.map((one) => Math.abs(one.burned_ms - one.pdt_ms));
    assert.ok(percentile(differences, 0.5) <= CLOCK_TOLERANCE_MS, `differences in ms: ${differences.join(' ')}`);
    // A picture that is drawn late on a busy machine shows the time of its drawing: a few may be off.
    assert.ok(percentile(differences, 0.75) <= 2 * CLOCK_TOLERANCE_MS, `differences in ms: ${differences.join(' ')}`);
    await viewer.close();
  });

  test('every rung can be chosen and none costs more than a second', async () => {
    const viewer = await Watcher.open(browser, watchUrl(stack.ready, 'demo'));
    const { rungs } = await viewer.playing(10_000);
    assert.ok(rungs.length >= 2, `the ladder has ${rungs.length} rungs`);
    const quality = viewer.page.locator('#quality');
    for (const rung of [...rungs, ...rungs.slice(0, -1).reverse()]) {
      const before = await viewer.snapshot();
      await quality.selectOption(String(rung.index));
      await viewer.until(`rung ${rung.height}p to be chosen`, 2_000, (s) => s.selected_rung === rung.index);
      await viewer.until(`rung ${rung.height}p to be on screen`, 15_000, (s) => s.rendition?.index === rung.index);
      const shown = await until('the picture to have its size', 5_000, () =>
        viewer.page.evaluate((height) => document.querySelector('video').videoHeight === height, rung.height),
      );
      assert.ok(shown);
      const after = await viewer.played(3, 15_000);
      const stalled_ms = after.stalled_ms - before.stalled_ms;
      assert.ok(stalled_ms <= 1_000, `going to ${rung.height}p stalled for ${stalled_ms} ms`);
    }
    await quality.selectOption('-1');
    await viewer.until('the choice to be automatic again', 2_000, (s) => s.selected_rung === -1);
    await viewer.close();
  });

  test('keyboard and buttons work', async () => {
    const viewer = await Watcher.open(browser, watchUrl(stack.ready, 'demo'));
    await viewer.playing(10_000);
    await viewer.page.keyboard.press('m');
    await viewer.until('sound', 2_000, (s) => !s.muted);
    await viewer.page.keyboard.press('Space');
    await viewer.until('the pause', 2_000, (s) => s.state === 'paused');
    await viewer.page.locator('#live').click();
    await viewer.until('live playback again', 10_000, (s) => s.state === 'playing' && s.latency_s < 5);
    await viewer.page.keyboard.press('f');
    await until('full screen', 3_000, () => viewer.page.evaluate(() => document.fullscreenElement?.id === 'stage'));
    assert.deepEqual(viewer.faults, []);
    await viewer.close();
  });

  test('a channel that does not exist is offline, not an error', async () => {
    const viewer = await Watcher.open(browser, watchUrl(stack.ready, 'nosuch'));
    await viewer.until('the page to say so', 10_000, (s) => s.state === 'offline');
    assert.match(await viewer.page.locator('#notice-title').innerText(), /not live/i);
    await viewer.close();
  });
});
