import assert from 'node:assert/strict';
import { test } from 'node:test';
import { earliest, Follow, hasSeekBar, within } from './follow';

const WINDOW = { start_s: 100, end_s: 3700 };

test('a seek bar needs a window of a minute', () => {
  assert.equal(hasSeekBar(undefined), false);
  assert.equal(hasSeekBar({ start_s: 0, end_s: 59 }), false);
  assert.equal(hasSeekBar({ start_s: 0, end_s: 60 }), true);
});

test('positions are kept where they can be played: behind the moving beginning, not beyond live', () => {
  assert.equal(within(WINDOW, 0), earliest(WINDOW));
  assert.ok(earliest(WINDOW) > WINDOW.start_s);
  assert.equal(within(WINDOW, 2000), 2000);
  assert.equal(within(WINDOW, 9999), 3700);
  const short = { start_s: 10, end_s: 14 };
  assert.equal(within(short, 0), 12);
  assert.equal(within({ start_s: 5, end_s: 5 }, 0), 5);
});

test('far behind after a seek is on purpose, a little behind is not', () => {
  const follow = new Follow();
  assert.equal(follow.live, true);
  follow.wentTo(3698, 3700, 1);
  assert.equal(follow.live, true);
  follow.wentTo(3695, 3700, 1);
  assert.equal(follow.live, false);
  follow.wentTo(3697, 3700, 25);
  assert.equal(follow.live, true);
  follow.wentTo(3000, 3700, 25);
  assert.equal(follow.live, false);
  follow.toLive();
  assert.equal(follow.live, true);
});

test('a pause keeps the position until the viewer goes on', () => {
  const follow = new Follow();
  follow.paused();
  assert.equal(follow.live, false);
  follow.wentTo(3699, 3700, 1);
  assert.equal(follow.live, true);
});

test('whoever follows live is not moved, whoever left the window is brought to its beginning', () => {
  const follow = new Follow();
  assert.equal(follow.playing(50, WINDOW), undefined);
  follow.wentTo(200, 3700, 1);
  assert.equal(follow.playing(150, WINDOW), undefined);
  assert.equal(follow.playing(99, WINDOW), earliest(WINDOW));
});

test('playing on to live ends being behind', () => {
  const follow = new Follow();
  follow.wentTo(200, 3700, 1);
  assert.equal(follow.playing(3699.9, WINDOW), undefined);
  assert.equal(follow.live, true);
});
