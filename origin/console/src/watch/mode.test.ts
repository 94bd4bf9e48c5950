import assert from 'node:assert/strict';
import { test } from 'node:test';
import { catchUp, liveSlackS, modeOf, modeOfPlaylist } from './mode';

test('only the three names are modes', () => {
  assert.deepEqual(['ultra', 'low', 'normal', 'Ultra', '', null].map(modeOf), ['ultra', 'low', 'normal', undefined, undefined, undefined]);
});

test('a playlist says its mode by its parts and its hold-back', () => {
  const table: [boolean, number, string][] = [[true, 6, 'ultra'], [true, 30, 'ultra'], [false, 6, 'low'], [false, 9, 'low'], [false, 25, 'normal']];
  for (const [parts, target, mode] of table) assert.equal(modeOfPlaylist(parts, target), mode, `${parts} ${target}`);
});

const PACES = {
  ultra: { target_s: 1.2, segment_s: 2, step_s: 0.4 },
  low: { target_s: 9, segment_s: 2, step_s: 2 },
  normal: { target_s: 25, segment_s: 2, step_s: 2 },
};

test('a viewer who went back is neither hurried nor thrown to live', () => {
  for (const pace of Object.values(PACES)) assert.deepEqual(catchUp(pace, false), { rate_max: 1, latency_max_s: Infinity });
});

test('whoever follows live is brought back: by playing faster where hls.js does that, beyond it by a jump', () => {
  assert.deepEqual(catchUp(PACES.ultra, true), { rate_max: 1.1, latency_max_s: 4 });
  assert.deepEqual(catchUp(PACES.low, true), { rate_max: 1.1, latency_max_s: 18 });
  assert.deepEqual(catchUp(PACES.normal, true), { rate_max: 1.05, latency_max_s: 40 });
  for (const pace of Object.values(PACES)) {
    const { latency_max_s } = catchUp(pace, true);
    assert.ok(latency_max_s + pace.step_s - pace.target_s <= pace.target_s + pace.segment_s + 1e-9, 'no place to be stuck between the two');
    assert.ok(latency_max_s > pace.target_s + liveSlackS(pace.target_s) * 0.99);
  }
});
