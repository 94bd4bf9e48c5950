// Measures what a viewer of the test source gets: latency from the clock burned into the picture and from
// PROGRAM-DATE-TIME, stalls, start-up, buffer. Judges nothing.
import { installClockReader } from './clock_code.mjs';
import { summary } from './numbers.mjs';

const SAMPLE_EVERY_MS = 100;
const TAKE_EVERY_MS = 5_000;

/**
 * Watches `viewer`, which has just been opened, for `seconds` after its picture moves; what comes in the first
 * `settle_s` is not part of the summaries. Returns `{first, last, samples, playing_ms, figures}`: the snapshots at the
 * two ends, the samples of `installClockReader`, when the picture moved, and the summaries.
 */
export async function measure(viewer, { seconds, settle_s = 0 }) {
  const first = await viewer.playing(30_000);
  const playing_ms = Date.now();
  await installClockReader(viewer.page);
  await viewer.page.waitForTimeout(settle_s * 1000);
  const settled = settle_s === 0 ? first : await viewer.snapshot();
  await viewer.page.evaluate((every) => window.__clock.watch(every), SAMPLE_EVERY_MS);
  const samples = [];
  const end = playing_ms + seconds * 1000;
  while (Date.now() < end) {
    await viewer.page.waitForTimeout(Math.min(TAKE_EVERY_MS, Math.max(1, end - Date.now())));
    samples.push(...(await viewer.page.evaluate(() => window.__clock.take())));
  }
  const last = await viewer.snapshot();
  return { first, last, samples, playing_ms, figures: figures(viewer, { first, settled, last, samples }) };
}

function figures(viewer, { first, settled, last, samples }) {
  const burned = samples.filter((one) => typeof one.burned_ms === 'number').map((one) => (one.now_ms - one.burned_ms) / 1000);
  const dated = samples.filter((one) => typeof one.latency_s === 'number').map((one) => one.latency_s);
  return {
    samples: samples.length,
    latency_burned_in_s: summary(burned),
    latency_pdt_s: summary(dated),
    buffer_s: summary(samples.map((one) => one.buffer_s)),
    playback_rate: summary(samples.map((one) => one.rate)),
    mode: last.mode,
    target_latency_s: last.target_latency_s,
    stalls: last.stalls - settled.stalls,
    stalled_ms: Math.round(last.stalled_ms - settled.stalled_ms),
    played_s: Number((last.current_time - first.current_time).toFixed(2)),
    startup_ms: Math.round(first.startup_ms),
    dropped_frames: last.dropped_frames,
    total_frames: last.total_frames,
    rendition: last.rendition,
    transport: last.transport,
    errors: last.errors,
    error_count: last.error_count,
    faults: viewer.faults,
  };
}
