import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addressOf } from './address';

test('channel and playlist come from the path; mode and token are passed on, the rest is not', () => {
  const table: [string, string, string | undefined][] = [
    ['/watch/demo', '', '/live/demo/index.m3u8'],
    ['/watch/demo/', '', '/live/demo/index.m3u8'],
    ['/watch/a-b_9', '?mode=low&utm=x', '/live/a-b_9/index.m3u8?mode=low'],
    ['/watch/demo', '?token=a%2Bb', '/live/demo/index.m3u8?token=a%2Bb'],
    ['/watch/', '', undefined],
    ['/watch/Demo', '', undefined],
    ['/watch/demo/extra', '', undefined],
    ['/watch/%3Cscript%3E', '', undefined],
    [`/watch/${'x'.repeat(65)}`, '', undefined],
  ];
  for (const [path, query, playlist] of table) assert.equal(addressOf(path, query)?.playlist, playlist, path);
});
