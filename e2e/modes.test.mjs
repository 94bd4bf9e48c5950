// One broadcast in three latency modes at once, watched by players that were not written here, from origin and edge; and
// back in its window.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { openBrowser, Watcher, watchUrl } from './lib/browser.mjs';
import { measure } from './lib/measure.mjs';
import { percentile, summary } from './lib/numbers.mjs';
import { ffmpegPlays, ffprobeReads, gstreamerPlays } from './lib/players.mjs';
import { mediaPlaylist, variantsOf } from './lib/playlist.mjs';
import { playWithShaka, serveShaka } from './lib/shaka.mjs';
import { startStack } from './lib/stack.mjs';
import { until } from './lib/until.mjs';

/** Seconds from the picture's own clock to the screen, as promised for each mode. */
const BANDS = { ultra: [0, 2], low: [8, 10], normal: [20, 30] };
const MODES = Object.keys(BANDS);
/** Shaka Player as it comes does not catch up: what it lost while starting on a busy machine stays lost. */
const SHAKA_BANDS = { ultra: [0, 4], low: [8, 12], normal: [20, 32] };
/** A moment of a busy machine may push single pictures this far out of the band, in seconds. */
const OUTLIER_S = 0.5;
/** Three pages decode on as many cores as there are: one of them may stand this long in all, in milliseconds. */
const STALLED_MS = 500;
/** Where the player takes a middle rung: three of them decode, and are drawn, by the processor that also encodes. */
const SMALL = { width: 640, height: 480 };
const DECODED_S = 8;
const SHAKA_S = 12;
const WATCHED_S = 40;
/** With whole segments a start may be a segment too late, and catching up is slow on purpose. */
const SETTLED_AFTER_S = 15;
const DVR_PLAYED_S = 5;

describe('one broadcast, three modes', { concurrency: false }, () => {
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

  const bases = () => ({ origin: stack.ready.origin, edge: stack.ready.edges[0].http });
  const url = (base, mode) => `${base}/live/demo/index.m3u8?mode=${mode}`;
  const inEveryMode = async (work) => Object.fromEntries(await Promise.all(MODES.map(async (mode) => [mode, await work(mode)])));

  // A young broadcast cannot be watched as late as `normal` wants.
  async function longerThan(seconds) {
    await until(`${seconds} s of the broadcast`, (seconds + 10) * 1000, async () => {
      const [variant] = await variantsOf(stack.ready.origin, 'demo', 'normal');
      const { segments } = await mediaPlaylist(variant.url);
      return segments.reduce((all, one) => all + one.duration_s, 0) > seconds;
    });
  }

  for (const from of ['origin', 'edge']) {
    test(`ffmpeg, ffprobe and GStreamer play every mode from the ${from}`, async () => {
      const base = bases()[from];
      await longerThan(8);
      const players = { ffmpeg: ffmpegPlays, gstreamer: gstreamerPlays };
      const found = await inEveryMode(async (mode) => {
        const at = url(base, mode);
        const [probed, ...played] = await Promise.all([ffprobeReads(at), ...Object.values(players).map((plays) => plays(at, DECODED_S))]);
        return { probed, played };
      });
      for (const [mode, { probed, played }] of Object.entries(found)) {
        assert.deepEqual(probed, { code: 0, codecs: ['aac', 'h264'], said: '' }, mode);
        Object.keys(players).forEach((player, at) => {
          const { code, said, played_s } = played[at];
          assert.deepEqual({ code, said }, { code: 0, said: '' }, `${player}, ${mode}`);
          // GStreamer's time is that of its clock, waiting for the broadcast included.
          assert.ok(played_s > DECODED_S - 0.5 && played_s < DECODED_S * 3, `${player}, ${mode}: ${played_s} s`);
        });
      }
    });
  }

  for (const from of ['origin', 'edge']) {
    test(`Shaka Player plays every mode from the ${from}, each as late as promised`, async (t) => {
      await longerThan(30);
      const base = from === 'edge' ? stack.ready.edges[0].https : stack.ready.origin;
      const shaka = await serveShaka();
      const found = {};
      try {
        // One after another: what a player loses while the next one starts beside it says nothing about the broadcast.
        for (const mode of MODES) found[mode] = await playWithShaka(browser, shaka.base, url(base, mode), SHAKA_S);
      } finally {
        await shaka.close();
      }
      for (const [mode, played] of Object.entries(found)) t.diagnostic(`${mode}: ${JSON.stringify({ ...played, latency_s: summary(played.latency_s) })}`);
      for (const [mode, played] of Object.entries(found)) {
        const latency = summary(played.latency_s);
        assert.deepEqual(played.errors, [], mode);
        // One stall while it starts is within what it is allowed.
        assert.ok(played.played_s > SHAKA_S - 2, `${mode}: played ${played.played_s} s of ${SHAKA_S}`);
        assert.ok(played.stalls <= 1, `${mode}: stalled ${played.stalls} times`);
        const [least, most] = SHAKA_BANDS[mode];
        assert.ok(latency.p50 >= least && latency.p50 <= most, `${mode}: ${JSON.stringify(latency)}`);
        if (mode === 'ultra') assert.ok(played.parts > 2 * SHAKA_S, `only ${played.parts} parts were asked for`);
        else assert.equal(played.parts, 0, `${mode} lists whole segments only`);
      }
    });
  }

  test('hls.js: three pages at once, each as late as promised', async (t) => {
    await longerThan(30);
    const found = await inEveryMode(async (mode) => {
      const viewer = await Watcher.open(browser, watchUrl(stack.ready, 'demo', { mode }), { viewport: SMALL });
      const measured = await measure(viewer, { seconds: WATCHED_S + SETTLED_AFTER_S, settle_s: SETTLED_AFTER_S });
      await viewer.close();
      return measured;
    });
    for (const [mode, { figures }] of Object.entries(found)) t.diagnostic(`${mode}: ${JSON.stringify(figures.latency_burned_in_s)}`);
    for (const [mode, { figures, samples }] of Object.entries(found)) {
      const late = samples.filter((one) => typeof one.burned_ms === 'number').map((one) => (one.now_ms - one.burned_ms) / 1000);
      assert.ok(late.length > samples.length * 0.9 && late.length > WATCHED_S * 3, `${mode}: ${late.length} of ${samples.length} clocks read`);
      const [least, most] = BANDS[mode];
      const [low, middle, high] = [0.05, 0.5, 0.95].map((part) => percentile(late, part));
      assert.ok(middle >= least && middle <= most, `${mode}: p50 is ${middle} s`);
      assert.ok(low >= least - OUTLIER_S && high <= most + OUTLIER_S, `${mode}: from ${low} s (p5) to ${high} s (p95)`);
      assert.ok(figures.stalled_ms <= STALLED_MS, `${mode}: ${figures.stalls} stalls, ${figures.stalled_ms} ms`);
      assert.equal(figures.mode, mode);
      assert.deepEqual(figures.faults, [], mode);
    }
  });

  for (const mode of ['ultra', 'low']) {
    test(`${mode}: back to the beginning of the window, there it plays on, and back to live`, async () => {
      const viewer = await Watcher.open(browser, watchUrl(stack.ready, 'demo', { mode }));
      const live = await viewer.playing(20_000);
      assert.ok(live.dvr.end_s - live.dvr.start_s > 60, `the channel keeps ${live.dvr.end_s - live.dvr.start_s} s`);
      await viewer.page.locator('#start-over').click();
      const back = await viewer.until('the beginning', 10_000, (s) => s.state === 'playing' && !s.follows_live && s.dvr.behind_live_s > 45);
      const on = await viewer.played(DVR_PLAYED_S, 15_000, back);
      // With whole segments live moves on by a segment at a time.
      const step_s = mode === 'ultra' ? 1.5 : 2.5;
      assert.ok(Math.abs(on.dvr.behind_live_s - back.dvr.behind_live_s) < step_s, 'it plays at its own pace');
      assert.equal(on.stalls, live.stalls, 'no stall');
      await viewer.page.locator('#live').click();
      const [, most] = BANDS[mode];
      const again = await viewer.until('live again', 15_000, (s) => s.state === 'playing' && s.follows_live && s.latency_s < most + 2);
      const last = await viewer.played(4, 15_000, again);
      // A gap where a transcoded rung dropped pictures, and a request given up for a seek, are noted by hls.js, not errors.
      const noted = ['fragGap', 'aborted'];
      assert.deepEqual(last.errors.filter((error) => error.fatal || !noted.includes(error.detail)), []);
      assert.deepEqual(viewer.faults, []);
      await viewer.close();
    });
  }
});
