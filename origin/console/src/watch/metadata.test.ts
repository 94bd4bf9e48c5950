import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isNotice, ofDateRange, Schedule, type TimedMetadata } from './metadata';

const tag = (id: string, start_ms: number, end_ms?: number): ReturnType<typeof ofDateRange> =>
  ofDateRange({ id, start_ms, end_ms, attributes: { ID: id } });
const ids = (items: TimedMetadata[]): string[] => items.map((item) => item.id);

function play(schedule: Schedule, from: number, to: number): string[] {
  const told: string[] = [];
  for (let now = from; now <= to; now += 50) told.push(...ids(schedule.advance(now)));
  return told;
}

test('a moment is told once, when the clock reaches it, in order', () => {
  const schedule = new Schedule(10);
  schedule.add(tag('b', 20_500));
  schedule.add(tag('a', 20_100));
  assert.deepEqual(play(schedule, 20_000, 20_050), []);
  assert.deepEqual(ids(schedule.advance(20_100)), ['a']);
  assert.deepEqual(play(schedule, 20_150, 30_000), ['b']);
});

test('what was over before the viewer came is not told, what still holds is', () => {
  const schedule = new Schedule(10);
  schedule.add(tag('moment', 9_000));
  schedule.add(tag('over', 9_000, 9_900));
  schedule.add(tag('holds', 9_000, 15_000));
  assert.deepEqual(play(schedule, 10_000, 12_000), ['holds']);
});

test('what is listed late is told late', () => {
  const schedule = new Schedule(10);
  play(schedule, 10_000, 12_000);
  schedule.add(tag('late', 11_500));
  assert.deepEqual(ids(schedule.advance(12_050)), ['late']);
});

test('known again, it is not told again; after a jump back it is', () => {
  const schedule = new Schedule(10);
  schedule.add(tag('a', 10_500));
  assert.deepEqual(play(schedule, 10_000, 11_000), ['a']);
  schedule.add(tag('a', 10_500, 30_000));
  assert.deepEqual(play(schedule, 11_050, 12_000), []);
  assert.deepEqual(play(schedule, 5_000, 11_000), ['a']);
});

test('a jump forward skips what lies between', () => {
  const schedule = new Schedule(10);
  schedule.add(tag('between', 15_000));
  play(schedule, 10_000, 11_000);
  assert.deepEqual(play(schedule, 20_000, 25_000), []);
});

test('it forgets the oldest, and what is listed no more', () => {
  const schedule = new Schedule(2);
  for (const [id, at] of [['a', 10_100], ['b', 10_200], ['c', 10_300]] as const) schedule.add(tag(id, at));
  schedule.keep(new Set(['a', 'c']));
  assert.deepEqual(play(schedule, 10_000, 11_000), ['c']);
});

test('a notice is one by its class and needs words', () => {
  const range = (attributes: Record<string, string>): TimedMetadata => ofDateRange({ id: 'x', start_ms: 0, end_ms: undefined, attributes }).item;
  assert.equal(isNotice(range({ CLASS: 'com.sigma.notice', 'X-TEXT': 'Hello' })), true);
  assert.equal(isNotice(range({ CLASS: 'com.sigma.notice' })), false);
  assert.equal(isNotice(range({ CLASS: 'com.example', 'X-TEXT': 'Hello' })), false);
  const id3 = { kind: 'id3', id: '', start_date: '', attributes: {}, text: 'Hello' } as const;
  assert.equal(isNotice({ ...id3, class: 'notice' }), true);
  assert.equal(isNotice({ ...id3, class: 'com.sigma.notice' }), false);
});
