import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StallMeter } from './stall';

interface Step {
  at: number;
  media: number;
  play?: boolean;
  rate?: number;
}

function run(steps: Step[]): ReturnType<StallMeter['totals']> {
  const meter = new StallMeter();
  for (const step of steps) {
    meter.sample({ now_ms: step.at, media_s: step.media, rate: step.rate ?? 1, should_play: step.play ?? true });
  }
  return meter.totals();
}

const ticks = (from: number, to: number, media: (at: number) => number): Step[] => {
  const out: Step[] = [];
  for (let at = from; at <= to; at += 50) out.push({ at, media: media(at) });
  return out;
};

test('a running clock has no stall', () => {
  assert.deepEqual(run(ticks(0, 5000, (at) => at / 1000)), { count: 0, total_ms: 0, stalled: false });
});

test('standing for exactly 100 ms is not a stall, 150 ms is one of 150 ms', () => {
  const before = ticks(0, 1000, (at) => at / 1000);
  assert.equal(run([...before, ...ticks(1050, 1100, () => 1), { at: 1150, media: 1.05 }]).count, 0);
  const totals = run([...before, ...ticks(1050, 1150, () => 1), { at: 1200, media: 1.05 }]);
  assert.deepEqual(totals, { count: 1, total_ms: 150, stalled: false });
});

test('a stall that goes on is counted once and grows', () => {
  const totals = run([...ticks(0, 1000, (at) => at / 1000), ...ticks(1050, 3000, () => 1)]);
  assert.deepEqual(totals, { count: 1, total_ms: 2000, stalled: true });
});

test('two separate stalls are two', () => {
  const totals = run([
    ...ticks(0, 1000, (at) => at / 1000),
    ...ticks(1050, 1300, () => 1),
    ...ticks(1350, 2000, (at) => (at - 300) / 1000),
    ...ticks(2050, 2300, () => 1.7),
  ]);
  assert.equal(totals.count, 2);
});

test('standing while paused is not a stall, nor is the moment of resuming', () => {
  const steps = ticks(0, 3000, () => 4).map((step) => ({ ...step, play: step.at > 2000 && step.at < 2150 }));
  assert.equal(run(steps).count, 0);
});

test('a stall ended by a pause keeps its length', () => {
  const totals = run([...ticks(0, 500, (at) => at / 1000), ...ticks(550, 1000, () => 0.5), { at: 1050, media: 0.5, play: false }]);
  assert.deepEqual(totals, { count: 1, total_ms: 500, stalled: false });
});

test('throttled timers: only media time that is missing counts', () => {
  assert.equal(run([{ at: 0, media: 0 }, { at: 1000, media: 0.98 }, { at: 2000, media: 2.08, rate: 1.1 }]).count, 0);
  const totals = run([{ at: 0, media: 0 }, { at: 1000, media: 0.4 }]);
  assert.equal(totals.count, 1);
  assert.ok(Math.abs(totals.total_ms - 600) < 1e-6);
});
