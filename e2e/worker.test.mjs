// The transcoding child process is killed: the source rendition does not notice, the other rungs come back.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { openBrowser, Watcher, watchUrl } from './lib/browser.mjs';
import { mediaPlaylist, tip, variantsOf } from './lib/playlist.mjs';
import { descendants } from './lib/processes.mjs';
import { startStack } from './lib/stack.mjs';
import { until } from './lib/until.mjs';

/** The rungs' way back, the child's restart included. */
const BACK_WITHIN_MS = 6_000;

let stack;
let browser;

before(async () => {
  stack = await startStack();
  browser = await openBrowser();
});

after(async () => {
  await browser?.close();
  await stack?.stop();
});

test('killing the transcoder costs the rungs seconds and the source nothing', async () => {
  const viewer = await Watcher.open(browser, watchUrl(stack.ready, 'demo'));
  const { rungs } = await viewer.playing(10_000);
  const source = rungs.reduce((most, rung) => (rung.height > most.height || (rung.height === most.height && rung.kbps > most.kbps) ? rung : most));
  await viewer.page.locator('#quality').selectOption(String(source.index));
  await viewer.until('the source rendition on screen', 15_000, (s) => s.rendition?.index === source.index);
  const before = await viewer.played(3, 10_000);

  const variants = await variantsOf(stack.ready.edges[0].http, 'demo');
  const transcoded = variants.filter((one) => one.RESOLUTION !== `${source.width}x${source.height}`);
  assert.ok(transcoded.length > 0, 'the channel has transcoded rungs');
  const [worker] = await workers();
  const tips = new Map();
  for (const rung of transcoded) tips.set(rung.url, tip(await mediaPlaylist(rung.url)));
  process.kill(worker.pid, 'SIGKILL');

  await until('a new transcoder', BACK_WITHIN_MS, async () => (await workers()).some((one) => one.pid !== worker.pid));
  for (const rung of transcoded) {
    await until(`${rung.RESOLUTION} to go on by two segments`, BACK_WITHIN_MS + 6_000, async () => {
      const now = await mediaPlaylist(rung.url);
      return tip(now) >= tips.get(rung.url) + 2_000;
    });
  }
  const later = await viewer.played(10, 20_000, before);
  assert.equal(later.stalls, before.stalls, `the source rendition stalled for ${later.stalled_ms - before.stalled_ms} ms`);
  assert.equal(later.rendition.index, source.index);

  const smallest = rungs.reduce((least, rung) => (rung.height < least.height ? rung : least));
  await viewer.page.locator('#quality').selectOption(String(smallest.index));
  await viewer.until('a transcoded rung on screen again', 15_000, (s) => s.rendition?.index === smallest.index);
  await viewer.played(5, 15_000);
  assert.deepEqual(viewer.faults, []);
  await viewer.close();
});

// The test source may run in a child of its own: the transcoder is the one that says so, or else the only one.
async function workers() {
  const all = (await descendants(stack.ready.pids.origin)).filter((one) => one.command.includes('media-worker'));
  const named = all.filter((one) => /transcode/.test(one.command));
  return named.length > 0 ? named : all;
}
