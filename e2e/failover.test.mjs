// One encoder feeds two origins that share a secret; an edge has both as upstreams. The first is killed: nobody who watches
// through the edge gets an error, and sessions go on.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { openBrowser, Watcher } from './lib/browser.mjs';
import { startCluster } from './lib/cluster.mjs';
import { clip } from './lib/media.mjs';
import { fetchText, parseMedia, parseMultivariant } from './lib/playlist.mjs';
import { ffmpeg } from './lib/publish.mjs';
import { startStack } from './lib/stack.mjs';

const VIEWERS = 20;

let stack;
let cluster;
let browser;

before(async () => {
  stack = await startStack({ source: false });
  cluster = await startCluster(stack);
  browser = await openBrowser();
});

after(async () => {
  await browser?.close();
  await cluster?.stop();
  await stack?.stop();
});

test('an origin is killed and no viewer has an error', async () => {
  const legs = cluster.push.map((url) => `[f=flv:onfail=ignore]${url}`).join('|');
  const encoder = ffmpeg(['-re', '-stream_loop', '-1', '-i', await clip(), '-c', 'copy', '-map', '0', '-f', 'tee', legs]);
  const stopped = new AbortController();
  try {
    const page = await Watcher.open(browser, `${cluster.edge}/watch/both`);
    await page.playing(30_000);
    const viewers = Array.from({ length: VIEWERS }, () => watch(cluster.edge, stopped.signal));
    await page.played(5, 20_000);

    const killed = Date.now();
    cluster.origins[0].child.kill('SIGKILL');
    const before = await page.snapshot();
    const later = await page.played(15, 45_000, before);
    stopped.abort();
    const seen = await Promise.all(viewers);

    const errors = seen.flatMap((one) => one.errors);
    assert.deepEqual(errors, [], cluster.log());
    const afterwards = seen.map((one) => one.answers.filter((at) => at > killed + 1_000).length);
    assert.ok(Math.min(...afterwards) > 20, `requests answered after the kill: ${afterwards}`);
    const gaps = seen.map((one) => longestGap(one.answers));
    assert.ok(Math.max(...gaps) < 3_000, `longest time without an answer, ms: ${gaps}`);
    assert.equal(page.navigations, 1);
    assert.ok(later.stalls - before.stalls <= 1, `stalls ${before.stalls} -> ${later.stalls}`);
    assert.deepEqual(page.faults, []);
    await page.close();
  } finally {
    stopped.abort();
    await encoder.kill();
  }
});

// A viewer with blocking reload, who gets every new part: when answers came, and which were none.
async function watch(edge, signal) {
  const seen = { answers: [], errors: [] };
  const get = async (url) => {
    const answer = await fetch(url, { cache: 'no-store', signal: AbortSignal.any([signal, AbortSignal.timeout(10_000)]) });
    const text = await answer.text();
    if (answer.ok) seen.answers.push(Date.now());
    else seen.errors.push(`${answer.status} ${url.slice(-60)}`);
    return answer.ok ? text : undefined;
  };
  try {
    const { url, text } = await fetchText(`${edge}/live/both/index.m3u8`);
    const media = new URL(parseMultivariant(text)[0].uri, url).href;
    let playlist = await get(media);
    let had = new Set();
    while (playlist !== undefined && !signal.aborted) {
      const parts = [...playlist.matchAll(/#EXT-X-PART:.*?URI="([^"]+)"/g)].map((found) => found[1]);
      const fresh = had.size === 0 ? parts.slice(-1) : parts.filter((part) => !had.has(part));
      had = new Set(parts);
      for (const part of fresh) await get(new URL(part, media).href);
      const now = parseMedia(playlist);
      playlist = await get(`${media}?_HLS_msn=${now.media_sequence + now.segments.length}&_HLS_part=${now.open_parts}`);
    }
  } catch (error) {
    if (!signal.aborted) seen.errors.push(String(error));
  }
  return seen;
}

function longestGap(times) {
  return times.slice(1).reduce((longest, time, at) => Math.max(longest, time - times[at]), 0);
}
