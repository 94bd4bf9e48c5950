// The latency that the project promises, measured for two minutes from the clock in the picture.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { openBrowser, Watcher, watchUrl } from './lib/browser.mjs';
import { measure } from './lib/measure.mjs';
import { startStack } from './lib/stack.mjs';

const SECONDS = 120;
/** Of every ten samples of the picture this many must have a readable clock, or the measurement says little. */
const READABLE = 0.9;

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

test('two minutes at ultra-low latency: no stall, half of the pictures within 2 s, all but a few within 2.5 s', async (t) => {
  const viewer = await Watcher.open(browser, watchUrl(stack.ready, 'demo', { mode: 'ultra' }));
  const { figures, samples } = await measure(viewer, { seconds: SECONDS });
  await viewer.close();
  const { latency_burned_in_s: latency } = figures;
  t.diagnostic(`latency ${JSON.stringify(latency)}`);
  assert.ok(latency.count >= samples.length * READABLE, `the clock was read in ${latency.count} of ${samples.length} pictures`);
  assert.ok(samples.length > SECONDS * 5, `only ${samples.length} samples`);
  assert.equal(figures.stalls, 0, `stalled ${figures.stalls} times, ${figures.stalled_ms} ms in all`);
  assert.ok(latency.p50 <= 2.0, `p50 is ${latency.p50} s`);
  assert.ok(latency.p95 <= 2.5, `p95 is ${latency.p95} s`);
  assert.ok(figures.played_s > SECONDS * 0.97, `played ${figures.played_s} s`);
  assert.deepEqual(figures.faults, []);
});
