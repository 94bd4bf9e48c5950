// Encoders that may not publish are told so, and whoever is live does not notice.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { clip } from './lib/media.mjs';
import { mediaPlaylist, tip, variantsOf } from './lib/playlist.mjs';
import { pushFile } from './lib/publish.mjs';
import { startStack } from './lib/stack.mjs';
import { bounded, until } from './lib/until.mjs';

const REFUSED_WITHIN_MS = 10_000;

let stack;
let film;

before(async () => {
  film = await clip();
  stack = await startStack({ source: false });
});

after(() => stack?.stop());

// What ffmpeg prints for an RTMP error that the server put into words.
function assertTold(push, outcome) {
  assert.notEqual(outcome.code, 0, 'ffmpeg ends with an error');
  assert.match(push.log(), /Server error: \S+/, `ffmpeg was told why:\n${push.log()}`);
}

test('an unknown stream key is refused in words', async () => {
  const push = pushFile(film, `${stack.ready.rtmp}/no-such-key`);
  const outcome = await bounded('ffmpeg to be refused', REFUSED_WITHIN_MS, push.exited);
  assertTold(push, outcome);
});

test('a second publisher on a live channel is refused and the first goes on', async () => {
  const address = stack.ready.publish.bench.rtmp;
  const first = pushFile(film, address);
  try {
    const base = stack.ready.edges[0].http;
    const [variant] = await until('the channel to be live', 15_000, () => variantsOf(base, 'bench').catch(() => undefined));
    const before = await mediaPlaylist(variant.url);

    const second = pushFile(film, address);
    const outcome = await bounded('the second ffmpeg to be refused', REFUSED_WITHIN_MS, second.exited);
    assertTold(second, outcome);

    const after = await until('the first to go on by two segments', 15_000, async () => {
      const now = await mediaPlaylist(variant.url);
      return tip(now) >= tip(before) + 2_000 ? now : undefined;
    });
    assert.equal(after.discontinuity_sequence, before.discontinuity_sequence);
    assert.ok(after.segments.every((one) => !one.discontinuity), 'nothing of the second got in');
    assert.ok(first.running(), first.log());
  } finally {
    await first.stop();
  }
});
