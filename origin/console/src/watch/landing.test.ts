import assert from 'node:assert/strict';
import { test } from 'node:test';
import { landing, type Stretch } from './landing';

/** Two seconds each from 0: `m` media, `g` gap. */
function list(kinds: string): Stretch[] {
  return [...kinds].map((kind, at) => ({ start_s: 2 * at, end_s: 2 * at + 2, gap: kind === 'g' }));
}

test('a picture that stands goes on in media, never in a gap', () => {
  const rows: [what: string, kinds: string, position: number, live: number, expected: number | undefined][] = [
    ['only gaps come after it', 'mmmmggg', 7.9, 12, undefined],
    ['media has begun again', 'mmmmgggmmm', 7.9, 12, 14.1],
    ['but not enough of it is listed', 'mmmmggmm', 7.9, 13, undefined],
    ['nothing but gaps', 'ggg', 0, 2, undefined],
    ['live is in the media after the gap', 'mmggmmmm', 3.9, 13, 13],
    ['live is in the gap', 'mmgggmmm', 3.9, 8, 10.1],
    ['live is in media before a newer gap', 'mmmmmg', 0.5, 7, 7],
    ['the media that stands still has nothing after it', 'mmm', 5.9, 3, undefined],
    ['an empty list', '', 0, 0, undefined],
  ];
  for (const [what, kinds, position, live, expected] of rows) {
    const found = landing(list(kinds), position, live, 5);
    assert.equal(found === undefined ? found : Math.round(found * 10) / 10, expected, what);
  }
});
