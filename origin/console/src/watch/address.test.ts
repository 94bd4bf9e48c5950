import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addressOf, playlistOf, queryWithMode } from './address';

test('channel and playlist come from the path; mode and token are passed on, the rest is not', () => {
  const table: [string, string, string | undefined][] = [
    ['/watch/demo', '', '/live/demo/index.m3u8'],
    ['/watch/demo/', '', '/live/demo/index.m3u8'],
    ['/watch/a-b_9', '?mode=low&utm=x', '/live/a-b_9/index.m3u8?mode=low'],
    ['/watch/demo', '?token=a%2Bb', '/live/demo/index.m3u8?token=a%2Bb'],
    ['/watch/demo', '?mode=fast', '/live/demo/index.m3u8'],
    ['/watch/demo', '?token=t&mode=ultra', '/live/demo/index.m3u8?mode=ultra&token=t'],
    ['/watch/', '', undefined],
    ['/watch/Demo', '', undefined],
    ['/watch/demo/extra', '', undefined],
    ['/watch/%3Cscript%3E', '', undefined],
    [`/watch/${'x'.repeat(65)}`, '', undefined],
  ];
  for (const [path, query, playlist] of table) {
    const address = addressOf(path, query);
    assert.equal(address && playlistOf(address), playlist, path + query);
  }
});

test('another mode leaves the rest of the query as it is', () => {
  assert.equal(queryWithMode('', 'low'), '?mode=low');
  assert.equal(queryWithMode('?token=a%2Bb&mode=ultra&utm=x', 'normal'), '?token=a%2Bb&mode=normal&utm=x');
});
