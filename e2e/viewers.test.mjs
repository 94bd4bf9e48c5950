// Viewers are counted as they are: what a crowd of them knows of itself is what the origin's statistics say, whatever the
// way they watch, move and leave; and an edge that is killed takes no more than its last second with it.
import assert from 'node:assert/strict';
import { readFile, readlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { freePorts, ready, start } from './lib/cluster.mjs';
import { load, playlists } from './lib/load.mjs';
import { clip } from './lib/media.mjs';
import { pushFile } from './lib/publish.mjs';
import { startStack } from './lib/stack.mjs';
import { bounded, until } from './lib/until.mjs';

const VIEWERS = 60;
/** The edge tells the origin every second what happened since. */
const REPORT_S = 1;
/** Watch time of sessions that are cut off after some seconds, each within a part: so much in total. */
const WATCH_PERCENT = 0.5;
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
    ...['--session-seconds', '6', '--leave', '3,2,1,1', '--protocols', '1,2,1', '--moves', '2', '--sleeps', '2', '--seeks', '3', '--cmcd', 'query'],
    ...['--verify', '--origin', stack.ready.origin, '--origin-token-file', stack.ready.admin_token_file],
  ], { json: join(folder, 'churn.json'), truth: join(folder, 'churn.jsonl') }));

  assert.equal(report.verification.length, 1, said);
  const [{ metrics, passed, sessions: views }] = report.verification;
  // Every session within one part, as the comparison says, is not 0.1 % of all where each lasts a few seconds only.
  const failed = metrics.filter((one) => one.verdict === 'fail' && !(one.name === 'total watch time' && Math.abs(parseFloat(one.measured)) < WATCH_PERCENT));
  assert.deepEqual(failed, [], said);
  assert.equal(code === 0, passed, said);
  assert.ok(views > VIEWERS, `sessions with media: ${views}`);
  const ways = new Set(sessions.map((one) => one.left));
  assert.deepEqual([...ways].sort(), ['close', 'end', 'reset', 'sleep', 'vanish']);
  const protocols = new Set(sessions.flatMap((one) => one.protocols));
  assert.deepEqual([...protocols].sort(), ['h1', 'h2', 'h3']);
  assert.ok(sessions.some((one) => one.pops.length > 1), 'somebody moved');
});

test('an edge that is killed loses its last second and nobody is counted twice', async () => {
  const doomed = await anotherEdge();
  const earlier = await statistics();
  const [own] = playlists(stack, 'bench');
  const crowd = load(stack, [
    ...['run', `${doomed.https}/live/bench/index.m3u8`, own, '--scenario', 'pop-death', '--viewers', String(VIEWERS)],
    ...['--ramp-seconds', '1', '--seconds', '12', '--max-errors', '1000000'],
  ], { truth: join(dirname(stack.ready.ca), 'kill.jsonl') });
  await until('everybody to watch', 10_000, async () => (await statistics()).viewers >= VIEWERS);
  doomed.child.kill('SIGKILL');
  const { sessions, said } = await bounded('the crowd', 40_000, crowd);

  const watched = sessions.reduce((sum, one) => sum + one.watched_us / 1e6, 0);
  const there = sessions.filter((one) => one.pops.includes('pop-2')).length;
  assert.equal(there, VIEWERS / 2, said);
  const most = there * (REPORT_S + TICK_S);
  // What the killed one had on disk is sent by the process that shares its folder.
  const lost = await until('all but the last second to be told', 20_000, async () => {
    const now = await statistics();
    const lost = watched - (now.watch_ms - earlier.watch_ms) / 1000;
    return lost <= most && { now, s: lost };
  });
  assert.ok(lost.s >= -0.001 * watched, `watch time that nobody watched: ${-lost.s} s`);
  assert.equal(lost.now.views - earlier.views, sessions.filter((one) => one.parts > 0).length, 'no view more and none less');
});

/** A process of its own that serves POP pop-2 beside the stack's, with the same folder for its reports. */
async function anotherEdge() {
  const data = dirname(stack.ready.ca);
  const programs = dirname(await readlink(`/proc/${stack.ready.pids.origin}/exe`));
  const config = await readFile(join(data, 'edge-2.toml'), 'utf8');
  const ports = await freePorts(3);
  const used = [stack.ready.edges[1].http, stack.ready.edges[1].https, stack.ready.edges[1].ops].map((url) => new URL(url).port);
  const file = join(data, 'another.toml');
  await writeFile(file, used.reduce((text, port, index) => text.replaceAll(`:${port}"`, `:${ports[index]}"`), config));
  const edge = start(join(programs, 'sigma-edge'), file);
  await ready(ports[2], edge);
  return { ...edge, https: `https://127.0.0.1:${ports[1]}` };
}

async function statistics() {
  return fetchJson(`${stack.ready.stats.bench}?by=pop`);
}

async function fetchJson(url) {
  const token = (await readFile(stack.ready.admin_token_file, 'utf8')).trim();
  const response = await fetch(url, { headers: { authorization: `Bearer ${token}` } });
  assert.equal(response.status, 200, url);
  return response.json();
}
