import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bitrate, duration, latency, picture, rungLabels, rungName, seconds, spoken, transport } from './format';
import type { Rung } from './source';

const rung = (width: number, height: number, fps: number, kbps: number): Rung => ({ index: 0, name: '', width, height, fps, kbps });

test('rung names', () => {
  const table: [Rung, string][] = [
    [rung(1280, 720, 30, 3000), '720p'],
    [rung(1280, 720, 59.94, 3000), '720p60'],
    [rung(720, 1280, 30, 3000), '720p'],
    [rung(0, 0, 0, 128), '128 kbit/s'],
    [rung(0, 0, 0, 0), 'Audio'],
  ];
  for (const [given, name] of table) assert.equal(rungName(given), name);
});

test('equal sizes are told apart by bit rate', () => {
  assert.deepEqual(rungLabels([rung(640, 360, 30, 800), rung(1280, 720, 30, 2500), rung(1280, 720, 30, 4100)]), [
    '360p',
    '720p · 2500 kbit/s',
    '720p · 4100 kbit/s',
  ]);
});

test('figures', () => {
  assert.equal(seconds(undefined), '–');
  assert.equal(seconds(1.234), '1.23 s');
  assert.equal(latency(1.5), '1.50 s');
  assert.equal(latency(-0.01), '0.00 s');
  assert.equal(latency(-3), 'clocks differ');
  assert.equal(bitrate(4100), '4100 kbit/s');
  assert.equal(bitrate(12_345), '12.3 Mbit/s');
  assert.equal(picture(rung(1280, 720, 29.97, 0)), '1280×720 @ 29.97');
  assert.equal(picture(undefined), '–');
  assert.equal(transport('h2'), 'HTTP/2');
  assert.equal(transport(''), '–');
});

test('durations for the eye and the ear', () => {
  const table: [number, string, string][] = [
    [0.4, '0:00', '0 seconds'],
    [61, '1:01', '1 minute 1 second'],
    [754, '12:34', '12 minutes 34 seconds'],
    [3_600, '1:00:00', '1 hour'],
    [14_465, '4:01:05', '4 hours 1 minute'],
  ];
  for (const [seconds, seen, heard] of table) {
    assert.equal(duration(seconds), seen);
    assert.equal(spoken(seconds), heard);
  }
  assert.equal(latency(754.2), '12:34');
  assert.equal(latency(99.5), '99.50 s');
});
