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

test('a viewer who went back is neither hurried nor thrown to live', () => {
  for (const target of [1, 9, 25]) assert.deepEqual(catchUp(target, false), { rate_max: 1, latency_max_s: Infinity });
});

test('the limits grow with the target and never reach it', () => {
  assert.deepEqual(catchUp(1.2, true), { rate_max: 1.1, latency_max_s: 11.2 });
  assert.deepEqual(catchUp(25, true), { rate_max: 1.05, latency_max_s: 40 });
  for (const target of [0.6, 1.2, 9, 25]) assert.ok(catchUp(target, true).latency_max_s > target + liveSlackS(target));
});
