import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backoffMs } from './backoff';

const limits = { first_ms: 500, max_ms: 5000 };

test('doubles, stops at the limit, and stays within a quarter of it', () => {
  const table: [number, number, number][] = [
    [0, 0.5, 500],
    [1, 0.5, 1000],
    [3, 0.5, 4000],
    [4, 0.5, 5000],
    [1000, 0.5, 5000],
    [-1, 0.5, 500],
    [0, 0, 375],
    [1000, 0.9999999, 6250],
  ];
  for (const [attempt, random, expected] of table) assert.equal(backoffMs(attempt, limits, random), expected);
});
