#!/usr/bin/env node
// Measures what a viewer of the test source gets through an edge: latency from the clock burned into the picture and
// from PROGRAM-DATE-TIME, stalls, start-up, buffer. Prints one JSON object. Not a test: it judges nothing.
//
//   node e2e/latency.mjs [--minutes 5] [--channel demo] [--edge 0] [--ready-file FILE]
//
// Without --ready-file it starts a stack of its own and stops it afterwards.
import { cpus, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { openBrowser, Watcher, watchUrl } from './lib/browser.mjs';
import { installClockReader } from './lib/clock_code.mjs';
import { summary } from './lib/numbers.mjs';
import { attachStack, startStack } from './lib/stack.mjs';

const SAMPLE_EVERY_MS = 100;

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '5' },
    channel: { type: 'string', default: 'demo' },
    edge: { type: 'string', default: '0' },
    'ready-file': { type: 'string' },
    help: { type: 'boolean' },
  },
});

const minutes = Number(values.minutes);
const edge = Number(values.edge);
if (values.help || !(minutes > 0) || !Number.isInteger(edge)) {
  process.stderr.write('usage: latency.mjs [--minutes N] [--channel NAME] [--edge NUMBER] [--ready-file FILE]\n');
  process.exit(values.help ? 0 : 2);
}

const browser = await openBrowser();
const stack = values['ready-file'] ? await attachStack(values['ready-file']) : await startStack({ edges: edge + 1 });
try {
  process.stdout.write(`${JSON.stringify(await measure(), undefined, 2)}\n`);
} finally {
  await browser.close();
  await stack.stop();
}

async function measure() {
  const opened_ms = Date.now();
  const viewer = await Watcher.open(browser, watchUrl(stack.ready, values.channel, edge));
  const first = await viewer.playing(30_000);
  const playing_ms = Date.now();
  await installClockReader(viewer.page);
  await viewer.page.evaluate((every) => window.__clock.watch(every), SAMPLE_EVERY_MS);

  const samples = [];
  const end = Date.now() + minutes * 60_000;
  while (Date.now() < end) {
    await viewer.page.waitForTimeout(Math.min(5_000, Math.max(1, end - Date.now())));
    samples.push(...(await viewer.page.evaluate(() => window.__clock.take())));
  }
  const last = await viewer.snapshot();
  await viewer.close();

  const burned = samples.filter((one) => typeof one.burned_ms === 'number').map((one) => (one.now_ms - one.burned_ms) / 1000);
  const dated = samples.filter((one) => typeof one.latency_s === 'number').map((one) => one.latency_s);
  return {
    channel: values.channel,
    minutes,
    samples: samples.length,
    latency_burned_in_s: summary(burned),
    latency_pdt_s: summary(dated),
    buffer_s: summary(samples.map((one) => one.buffer_s)),
    playback_rate: summary(samples.map((one) => one.rate)),
    target_latency_s: last.target_latency_s,
    stalls: last.stalls,
    stalled_ms: Math.round(last.stalled_ms),
    played_s: Number((last.current_time - first.current_time).toFixed(2)),
    startup_ms: Math.round(first.startup_ms),
    page_to_playing_ms: playing_ms - opened_ms,
    run_to_ready_ms: stack.ready_ms ? stack.ready_ms - stack.started_ms : null,
    run_to_playing_ms: stack.started_ms ? playing_ms - stack.started_ms : null,
    dropped_frames: last.dropped_frames,
    total_frames: last.total_frames,
    rendition: last.rendition,
    transport: last.transport,
    errors: last.errors,
    error_count: last.error_count,
    faults: viewer.faults,
    machine: { cores: cpus().length, load_1min: Number(loadavg()[0].toFixed(2)) },
  };
}
