// Two channels that are sent by one `sigma-load publish`, with a window on disk and for who shows a token: viewers with
// several tabs to a token, who go back in the window, are counted as they are; and a token for one session is good at one
// edge at a time.
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { mkdir, readFile, readlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { freePorts, ready, start } from './lib/cluster.mjs';
import { load, loadTester } from './lib/load.mjs';
import { parseMedia, parseMultivariant } from './lib/playlist.mjs';
import { alive, descendants } from './lib/processes.mjs';
import { startStack } from './lib/stack.mjs';
import { bounded, until } from './lib/until.mjs';

const CHANNELS = ['window-1', 'window-2'];
/** What an origin keeps in memory at least; before that, segments come from disk. */
const MEMORY_S = 12;
const LISTED_BEFORE_S = 2 * MEMORY_S + 6;
const VIEWERS = 48;
const TABS = 3;
const TOKENS = 8;
/** Sessions that are cut off after some seconds, each within a part: so much in total. */
const WATCH_PERCENT = 0.5;

let stack;
let site;
let publisher;

before(async () => {
  // For its certificates.
  stack = await startStack({ edges: 2, source: false });
  site = await startSite();
  publisher = await publish(site.push);
  await until('a window that is on disk', (LISTED_BEFORE_S + 30) * 1000, async () => (await listed()) > LISTED_BEFORE_S);
});

after(async () => {
  publisher?.child.kill('SIGKILL');
  await site?.stop();
  await stack?.stop();
});

test('tabs that share a token and go back in the window are counted as they are', async () => {
  const tokens = await Promise.all(Array.from({ length: TOKENS }, (_, n) => site.token(`viewer-${n}`)));
  const tokenFile = join(site.folder, 'tokens.txt');
  await writeFile(tokenFile, tokens.join('\n'));
  const urls = CHANNELS.flatMap((channel) => site.edges.map((edge) => `${edge}/live/${channel}/index.m3u8`));
  const { code, report, sessions, said } = await bounded('the crowd', 90_000, load(stack, [
    ...['run', ...urls, '--scenario', 'churn', '--viewers', String(VIEWERS), '--ramp-seconds', '2', '--seconds', '16'],
    ...['--session-seconds', '9', '--seeks', '12', '--leave', '2,1,1', '--protocols', '1,2,1', '--plain'],
    ...['--token-file', tokenFile, '--tabs', String(TABS)],
    ...['--verify', '--origin', site.origin, '--origin-token-file', site.adminToken],
  ], { json: join(site.folder, 'window.json'), truth: join(site.folder, 'window.jsonl') }));

  assert.deepEqual(report.verification.map((one) => one.channel).sort(), CHANNELS, said);
  for (const { channel, metrics } of report.verification) {
    const failed = metrics.filter((one) => one.verdict === 'fail' && !(one.name === 'total watch time' && Math.abs(parseFloat(one.measured)) < WATCH_PERCENT));
    assert.deepEqual(failed, [], `${channel}: ${said}`);
  }
  assert.deepEqual(report.errors, {}, said);
  assert.equal(code === 0, report.passed, said);
  assert.ok(report.results.tally.seeks + report.results.warm_up.seeks > VIEWERS, 'they went back');
  assert.ok(report.segments > 0, 'what is no longer listed in parts came as segments');

  // A tab is a session of its own; a token is a viewer.
  const views = sessions.filter((one) => one.parts > 0);
  assert.equal(new Set(views.map((one) => one.session)).size, views.length);
  for (const channel of CHANNELS) {
    const { unique_viewers, views: counted } = await site.statistics(channel);
    assert.ok(unique_viewers <= TOKENS && unique_viewers > 1, `${channel}: ${unique_viewers} viewers with ${TOKENS} tokens`);
    const here = views.filter((one) => one.channel === channel);
    assert.ok(counted >= here.length && unique_viewers < counted, `${channel}: ${counted} views, ${here.length} known`);
  }
});

test('the full view shows every POP, and Ctrl-C gives the terminal back with the report on it', async () => {
  const tokenFile = join(site.folder, 'token.txt');
  await writeFile(tokenFile, await site.token('spectator'));
  const urls = site.edges.map((edge) => `${edge}/live/${CHANNELS[0]}/index.m3u8`);
  const line = [await loadTester(stack), 'run', ...urls, '--viewers', '4', '--ramp-seconds', '0', '--seconds', '60', '--live', '--ca', stack.ready.ca, '--token-file', tokenFile];
  const quoted = line.map((word) => `'${word}'`).join(' ');
  // Gives it a terminal.
  const child = spawn('script', ['--quiet', '--return', '--flush', '--command', `stty rows 24 cols 120; exec ${quoted}`, '/dev/null'], { stdio: ['pipe', 'pipe', 'inherit'] });
  let screen = '';
  child.stdout.on('data', (bytes) => {
    screen += bytes.toString();
  });
  const exited = new Promise((resolve) => {
    child.once('close', resolve);
  });
  try {
    await until('both POPs on the screen', 20_000, () => screen.includes('pop-1') && screen.includes('pop-2'));
    child.stdin.write('typed\x03');
    assert.equal(await bounded('it to end', 20_000, exited), 0, screen.slice(-2_000));
  } finally {
    child.kill('SIGKILL');
  }
  const [taken, given] = ['\x1b[?1049h', '\x1b[?1049l'].map((sequence) => screen.split(sequence));
  assert.deepEqual([taken.length, given.length], [2, 2], 'taken once and given back once');
  assert.match(given[1], /4 sessions begun, [2-4] got media/);
  assert.doesNotMatch(taken[1], /typed/, 'keys do not show meanwhile');
});

test('a token for one session plays at one edge at a time', async () => {
  const token = await site.token('once', ['--max-sessions', '1']);
  const [first, second] = site.plainEdges.map((edge, n) => new Tab(`${edge}/live/${CHANNELS[0]}/index.m3u8?token=${token}`, `device-${n}`));
  try {
    assert.equal(await first.open(), 200);
    first.play();
    // The other edge does not know yet, or it does.
    if ((await second.open()) === 200) second.play();
    const { last } = await until('the second one to be refused', 4_000, async () => {
      if (second.last === 200) return undefined;
      return (await second.open()) === 403 && { last: second.last };
    });
    assert.equal(last, 403);
    for (let look = 0; look < 20; look += 1) assert.equal(await second.open(), 403, 'for as long as the first one plays');
    assert.equal(first.last, 200, 'who was there first plays on');

    // The same session at the other edge is the same viewer.
    const moved = first.session.replace(site.plainEdges[0], site.plainEdges[1]);
    assert.equal((await first.fetch(moved)).status, 200, 'it is not in its own way');
    assert.equal(await second.open(), 403);

    await first.leave();
    await until('the second one to be let in', 15_000, async () => (await second.open()) === 200);
  } finally {
    await Promise.all([first.leave(), second.leave()]);
  }
});

test('a publisher that is killed takes its encoders with it', async () => {
  const encoders = (await descendants(publisher.child.pid)).map((one) => one.pid);
  assert.ok(encoders.length > 0, 'the test source is made by ffmpeg');
  publisher.child.kill('SIGKILL');
  await publisher.exited;
  await until('its encoders to be gone', 10_000, async () => {
    const left = await Promise.all(encoders.map(alive));
    return left.every((one) => !one);
  });
  const before = await listed();
  const again = await publish(site.push);
  await until('both channels to go on', 30_000, async () => (await listed()) > before + 4);
  again.child.kill('SIGTERM');
  assert.equal(await bounded('it to end', 15_000, again.exited), 0, again.log());
  const report = JSON.parse(await readFile(again.report, 'utf8'));
  assert.deepEqual(report.publishers.map((one) => one.number), [1, 2]);
  assert.ok(report.publishers.every((one) => one.bytes > 0 && one.errors.length === 0), JSON.stringify(report));
});

/** A player that reloads its playlist with every new part, as long as it may. `last` is what it was answered last. */
class Tab {
  constructor(entry, agent) {
    this.entry = entry;
    this.headers = { 'user-agent': agent };
    this.left = new AbortController();
    this.playing = Promise.resolve();
  }

  /** Opens the channel anew. Returns what that was answered; `session` is then the address of its Multivariant Playlist. */
  async open() {
    const answer = await this.fetch(this.entry);
    this.last = answer.status;
    const text = await answer.text();
    if (answer.ok) {
      this.session = answer.url;
      this.media = new URL(parseMultivariant(text)[0].uri, answer.url).href;
    }
    return answer.status;
  }

  fetch(url, ...signals) {
    return fetch(url, { headers: this.headers, cache: 'no-store', signal: AbortSignal.any([...signals, AbortSignal.timeout(10_000)]) });
  }

  play() {
    this.playing = this.reload().catch((error) => {
      if (!this.left.signal.aborted) throw error;
    });
  }

  async reload() {
    let query = '';
    while (!this.left.signal.aborted) {
      const answer = await this.fetch(`${this.media}${query}`, this.left.signal);
      this.last = answer.status;
      const text = await answer.text();
      if (!answer.ok) return;
      const { media_sequence, segments, open_parts } = parseMedia(text);
      query = `?_HLS_msn=${media_sequence + segments.length}&_HLS_part=${open_parts}`;
    }
  }

  async leave() {
    this.left.abort();
    await this.playing;
  }
}

/** Seconds that the shorter one of the channels lists. */
async function listed() {
  const lengths = await Promise.all(CHANNELS.map(async (channel) => {
    const base = `${site.ownEdge}/live/${channel}/`;
    const token = await site.token('waiting');
    const entry = await fetch(`${base}index.m3u8?token=${token}`);
    if (!entry.ok) return 0;
    const lines = (await entry.text()).split('\n');
    const variant = lines.find((line) => line !== '' && !line.startsWith('#'));
    const media = await (await fetch(new URL(variant, entry.url))).text();
    return [...media.matchAll(/#EXTINF:([0-9.]+)/g)].reduce((sum, [, seconds]) => sum + Number(seconds), 0);
  }));
  return Math.min(...lengths);
}

/** `sigma-load` as the publishers of both channels, of a test picture. */
async function publish(url) {
  const report = join(site.folder, 'publish.json');
  const child = spawn(await loadTester(stack), ['publish', url, '--count', '2', '--test-source', '320x180@25', '--test-kbps', '300', '--json', report], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (bytes) => {
    said = (said + bytes.toString()).slice(-4_000);
  });
  const exited = new Promise((resolve) => {
    child.once('error', resolve);
    child.once('close', resolve);
  });
  const orphaned = () => child.kill('SIGKILL');
  process.once('exit', orphaned);
  void exited.finally(() => process.off('exit', orphaned));
  return { child, exited, report, log: () => said };
}

/** An origin with both channels, and two edges. */
async function startSite() {
  const data = dirname(stack.ready.ca);
  const folder = join(data, 'site');
  const programs = dirname(await readlink(`/proc/${stack.ready.pids.origin}/exe`));
  await mkdir(folder);
  const [http, tls, ops, rtmp] = await freePorts(4);
  const config = join(folder, 'origin.toml');
  await writeFile(config, originToml({ data, folder, ports: { http, tls, ops, rtmp } }));
  const started = [];
  const stop = async () => {
    for (const one of started) one.child.kill('SIGTERM');
    await Promise.all(started.map((one) => one.exited));
  };
  try {
    started.push(start(join(programs, 'sigma-origin'), config));
    await ready(ops, started[0]);
    const edges = [];
    for (const pop of ['pop-1', 'pop-2']) {
      const ports = await freePorts(3);
      const file = join(folder, `${pop}.toml`);
      await writeFile(file, edgeToml({ data, folder, pop, origin: tls, ports }));
      const edge = start(join(programs, 'sigma-edge'), file);
      started.push(edge);
      await ready(ports[2], edge);
      edges.push({ http: `http://127.0.0.1:${ports[0]}`, https: `https://127.0.0.1:${ports[1]}` });
    }
    const origin = `http://127.0.0.1:${http}`;
    const adminToken = join(folder, 'data', 'admin.token');
    return {
      folder, stop, origin, adminToken,
      edges: edges.map((edge) => edge.https),
      ownEdge: edges[0].http,
      plainEdges: edges.map((edge) => edge.http),
      push: `rtmp://127.0.0.1:${rtmp}/live/window-key-{n}`,
      async token(subject, more = []) {
        const args = ['playback-token', 'create', '--config', config, '--subject', subject, ...more, ...CHANNELS.flatMap((id) => ['--channel', id])];
        return (await promisify(execFile)(join(programs, 'sigma-origin'), args)).stdout.trim();
      },
      async statistics(channel) {
        const token = (await readFile(adminToken, 'utf8')).trim();
        const response = await fetch(`${origin}/api/v1/stats/${channel}`, { headers: { authorization: `Bearer ${token}` } });
        assert.equal(response.status, 200);
        return response.json();
      },
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

function originToml({ data, folder, ports: { http, tls, ops, rtmp } }) {
  const channels = CHANNELS.map((id, n) => `[[channels]]
id = "${id}"
type = "forward"
key = "window-key-${n + 1}"
dvr_window_s = 600
playback = "token"
`);
  return `data_dir = "${folder}/data"
[http]
bind = ["127.0.0.1:${http}"]
[tls]
bind = ["127.0.0.1:${tls}"]
certificate = "${data}/tls.pem"
key = "${data}/tls.key"
client_ca = "${data}/ca.pem"
[ops]
bind = "127.0.0.1:${ops}"
[rtmp]
bind = ["127.0.0.1:${rtmp}"]
[live]
window_ms = ${MEMORY_S * 1000}
${channels.join('')}`;
}

function edgeToml({ data, folder, pop, origin, ports: [http, tls, ops] }) {
  return `pop = "${pop}"
[http]
bind = ["127.0.0.1:${http}"]
[tls]
bind = ["127.0.0.1:${tls}"]
certificate = "${data}/tls.pem"
key = "${data}/tls.key"
[ops]
bind = "127.0.0.1:${ops}"
[upstream]
urls = ["https://127.0.0.1:${origin}"]
ca = "${data}/ca.pem"
certificate = "${data}/${pop}.pem"
key = "${data}/${pop}.key"
[reports]
spool_dir = "${folder}/reports"
`;
}
