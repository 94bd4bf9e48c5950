// Viewers are counted as they are: what a crowd of them knows of itself is what the origin's statistics say, whatever the
// way they watch, move and leave; and an edge that is killed takes no more than its last second with it.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { load, playlists } from './lib/load.mjs';
import { clip } from './lib/media.mjs';
import { pushFile } from './lib/publish.mjs';
import { startStack } from './lib/stack.mjs';
import { bounded, until } from './lib/until.mjs';

const VIEWERS = 60;
/** The edge tells the origin every second what happened since. */
const REPORT_S = 1;
/** A kill and the report before it are told apart no better than this. */
const TICK_S = 0.25;

let stack;
let encoder;

before(async () => {
  stack = await startStack({ edges: 2, source: false });
  encoder = pushFile(await clip(), stack.ready.publish.bench.rtmp);
  await until('the channel to be live', 20_000, async () => (await fetch(playlists(stack, 'bench')[0].replace(/^https:..[^/]+/, stack.ready.edges[0].http))).ok);
});

after(async () => {
  await encoder?.stop();
  await stack?.stop();
});

test('what viewers know of themselves is what the origin says of them', async () => {
  const folder = dirname(stack.ready.ca);
  const { code, report, sessions, said } = await bounded('the crowd', 60_000, load(stack, [
    ...['run', ...playlists(stack, 'bench'), '--scenario', 'churn', '--viewers', String(VIEWERS), '--ramp-seconds', '2', '--seconds', '14'],
    ...['--session-seconds', '6', '--leave', '3,2,1,1', '--protocols', '1,2,1', '--moves', '3', '--sleeps', '2', '--seeks', '3', '--cmcd', 'query'],
    ...['--verify', '--origin', stack.ready.origin, '--origin-token-file', stack.ready.admin_token_file],
  ], { json: join(folder, 'churn.json'), truth: join(folder, 'churn.jsonl') }));

  assert.equal(report.verification.length, 1, said);
  const [{ metrics, passed, sessions: views }] = report.verification;
  assert.ok(passed && code === 0, JSON.stringify(metrics.filter((one) => one.verdict === 'fail'), null, 1) + said);
  assert.ok(views > VIEWERS, `sessions with media: ${views}`);
  const ways = new Set(sessions.map((one) => one.left));
  assert.deepEqual([...ways].sort(), ['close', 'end', 'reset', 'sleep', 'vanish']);
  const protocols = new Set(sessions.flatMap((one) => one.protocols));
  assert.deepEqual([...protocols].sort(), ['h1', 'h2', 'h3']);
  assert.ok(sessions.some((one) => one.pops.length > 1), 'somebody moved');
});

test('an edge that is killed loses its last second and nobody is counted twice', async () => {
  const folder = dirname(stack.ready.ca);
  const earlier = await statistics();
  const crowd = load(stack, [
    ...['run', ...playlists(stack, 'bench'), '--viewers', String(VIEWERS), '--ramp-seconds', '1', '--seconds', '12', '--max-errors', '1000000'],
  ], { truth: join(folder, 'kill.jsonl') });
  await until('everybody to watch', 10_000, async () => (await statistics()).viewers >= VIEWERS);
  process.kill(stack.ready.pids.edges[1], 'SIGKILL');
  const { sessions, said } = await bounded('the crowd', 40_000, crowd);

  const last = Math.max(...sessions.flatMap((one) => one.present_ms.map(([, end]) => end)));
  const now = await until('the other edge to have told everything', 15_000, async () => {
    const now = await statistics();
    const pop = now.by.find((one) => one.pop === 'pop-1');
    const told = await fetchJson(`${stack.ready.stats.pops}`);
    const at = Date.parse(told.items.find((one) => one.id === 'pop-1').last_report_at);
    return pop && at > last + 2_000 ? now : undefined;
  });
  const watched = sessions.reduce((sum, one) => sum + one.watched_us / 1e6, 0);
  const told = (now.watch_ms - earlier.watch_ms) / 1000;
  const lost = watched - told;
  const atTheEdge = sessions.filter((one) => one.pops.includes('pop-2')).length;
  assert.ok(atTheEdge >= VIEWERS / 2 - 1, `${atTheEdge} were there: ${said}`);
  assert.equal(now.views - earlier.views, sessions.filter((one) => one.parts > 0).length, 'no view more and none less');
  assert.ok(lost <= atTheEdge * (REPORT_S + TICK_S), `watch time lost: ${lost} s of ${atTheEdge} viewers`);
  assert.ok(lost >= -0.001 * watched, `watch time that nobody watched: ${-lost} s`);
});

async function statistics() {
  return fetchJson(`${stack.ready.stats.bench}?by=pop`);
}

async function fetchJson(url) {
  const token = (await readFile(stack.ready.admin_token_file, 'utf8')).trim();
  const response = await fetch(url, { headers: { authorization: `Bearer ${token}` } });
  assert.equal(response.status, 200, url);
  return response.json();
}
