import assert from 'node:assert/strict';
import { test } from 'node:test';
import { id3Frames } from './id3';

const ascii = (text: string): number[] => Array.from(text, (letter) => letter.charCodeAt(0));
const utf16le = (text: string): number[] => [0xff, 0xfe, ...Array.from(text, (letter) => [letter.charCodeAt(0) & 0xff, letter.charCodeAt(0) >> 8]).flat()];
const seven = (value: number): number[] => [(value >> 21) & 0x7f, (value >> 14) & 0x7f, (value >> 7) & 0x7f, value & 0x7f];
const eight = (value: number): number[] => [0, 0, value >> 8, value & 0xff];

function tag(version: number, ...frames: [string, number[]][]): Uint8Array {
  const body = frames.flatMap(([id, bytes]) => [...ascii(id), ...(version === 4 ? seven : eight)(bytes.length), 0, 0, ...bytes]);
  return new Uint8Array([...ascii('ID3'), version, 0, 0, ...seven(body.length), ...body]);
}

test('text frames in every encoding, both versions', () => {
  const utf8 = [3, ...new TextEncoder().encode('notice\0Grüße <b>& 👋</b>')];
  assert.deepEqual(id3Frames(tag(4, ['TXXX', utf8])), [{ id: 'TXXX', description: 'notice', text: 'Grüße <b>& 👋</b>' }]);
  assert.deepEqual(id3Frames(tag(3, ['TXXX', [0, ...ascii('notice\0plain')]])), [{ id: 'TXXX', description: 'notice', text: 'plain' }]);
  const wide = [1, ...utf16le('notice'), 0, 0, ...utf16le('wide')];
  assert.deepEqual(id3Frames(tag(4, ['TXXX', wide])), [{ id: 'TXXX', description: 'notice', text: 'wide' }]);
  assert.deepEqual(id3Frames(tag(4, ['TIT2', [2, 0, 0x41, 0, 0x42]])), [{ id: 'TIT2', description: '', text: 'AB' }]);
});

test('a frame longer than 127 bytes has its length in seven bits a byte in 2.4 and eight in 2.3', () => {
  const long = 'x'.repeat(300);
  for (const version of [3, 4]) assert.equal(id3Frames(tag(version, ['TIT2', [0, ...ascii(long)]]))[0]?.text, long);
});

test('several frames, private ones by their owner, unknown ones left out', () => {
  const frames = id3Frames(tag(4, ['PRIV', [...ascii('com.example\0'), 1, 2]], ['APIC', [1, 2, 3]], ['TIT2', [3, ...ascii('t')]]));
  assert.deepEqual(frames.map((frame) => [frame.id, frame.description, frame.text]), [['PRIV', 'com.example', ''], ['TIT2', '', 't']]);
});

test('whatever is cut short or is no tag gives what can be read', () => {
  const whole = tag(4, ['TIT2', [3, ...ascii('first')]], ['TIT2', [3, ...ascii('second')]]);
  for (let length = 0; length < whole.length; length += 1) {
    assert.ok(id3Frames(whole.subarray(0, length)).length <= 1, `${length} bytes`);
  }
  assert.deepEqual(id3Frames(new Uint8Array(64)), []);
  assert.deepEqual(id3Frames(tag(2, ['TIT2', [3, 65]])), []);
});
