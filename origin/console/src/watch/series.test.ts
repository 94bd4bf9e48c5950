import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Series } from './series';

test('keeps the span and the bound, whichever is smaller', () => {
  const bySpan = new Series(1000, 100);
  for (let at = 0; at <= 5000; at += 100) bySpan.push({ at_ms: at, value: at, stalled: false });
  assert.equal(bySpan.list()[0]?.at_ms, 4000);
  assert.equal(bySpan.list().length, 11);

  const byCount = new Series(1_000_000, 3);
  for (let at = 0; at < 10; at += 1) byCount.push({ at_ms: at, value: at, stalled: false });
  assert.deepEqual(byCount.list().map((point) => point.at_ms), [7, 8, 9]);
});

test('the ceiling passes over gaps and has a floor', () => {
  const series = new Series(1000, 10);
  series.push({ at_ms: 0, value: undefined, stalled: true });
  assert.equal(series.ceiling(2), 2);
  series.push({ at_ms: 1, value: 3.5, stalled: false });
  assert.equal(series.ceiling(2), 3.5);
});
