// Shaka Player in a page of the test's own: it comes from node_modules and is served from here, so the broadcast is of
// another origin, as it is for players on other people's sites.
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { fileURLToPath } from 'node:url';

const SHAKA = fileURLToPath(import.meta.resolve('shaka-player/dist/shaka-player.compiled.js'));
const PAGE = '<!doctype html><title>Shaka Player</title><video id="video" muted playsinline></video><script src="/shaka.js"></script>';

/** Serves the page. Returns `{base, close}`. */
export async function serveShaka() {
  const script = await readFile(SHAKA);
  const server = createServer((request, response) => {
    if (request.url === '/shaka.js') response.writeHead(200, { 'content-type': 'text/javascript' }).end(script);
    else if (request.url === '/') response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end(PAGE);
    else response.writeHead(404).end();
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    base: `http://127.0.0.1:${server.address().port}`,
    close: () => new Promise((resolve) => {
      server.close(resolve);
      server.closeAllConnections();
    }),
  };
}

/** Plays `url` for `seconds` in a page of its own and returns what it measured: `{errors, recovered,
 * latency_s, stalls, played_s, parts, segments}`; `errors` are those that end playback. */
export async function playWithShaka(browser, base, url, seconds) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const page = await context.newPage();
  const requested = [];
  page.on('request', (request) => requested.push(new URL(request.url()).pathname));
  try {
    await page.goto(`${base}/`);
    const measured = await page.evaluate(play, { url, seconds });
    const parts = requested.filter((path) => /\/\d+\.\d+\.m4s$/.test(path)).length;
    const segments = requested.filter((path) => /\/\d+\.m4s$/.test(path)).length;
    return { ...measured, parts, segments };
  } finally {
    await context.close();
  }
}

// Runs in the page.
async function play({ url, seconds }) {
  const STALL_AFTER_MS = 100;
  const video = document.getElementById('video');
  const errors = [];
  const recovered = [];
  const player = new window.shaka.Player();
  // What Shaka calls recoverable it goes on after by itself, such as a hinted part that never came (404).
  player.addEventListener('error', ({ detail }) => {
    (detail.severity === window.shaka.util.Error.Severity.CRITICAL ? errors : recovered).push(`${detail.code}: ${detail.data}`);
  });
  const failed = (error) => ({ errors: [...errors, String(error.code ?? error)], recovered, latency_s: [], stalls: 0, played_s: 0 });
  try {
    await player.attach(video);
    await player.load(url);
    await video.play();
  } catch (error) {
    return failed(error);
  }
  const latency_s = [];
  let stalls = 0;
  let standing = false;
  let movedAt = 0;
  let last = -1;
  let from;
  const began = performance.now();
  return new Promise((resolve) => {
    const timer = setInterval(() => {
      const now = performance.now();
      const at = video.currentTime;
      if (at !== last) {
        if (from === undefined && last >= 0) from = { now, at };
        movedAt = now;
        standing = false;
        if (from) latency_s.push((Date.now() - player.getPlayheadTimeAsDate().getTime()) / 1000);
      } else if (from && !standing && now - movedAt > STALL_AFTER_MS) {
        standing = true;
        stalls += 1;
      }
      last = at;
      const over = from ? now - from.now > seconds * 1000 : now - began > 20_000;
      if (!over && errors.length === 0) return;
      clearInterval(timer);
      const result = { errors, recovered, latency_s, stalls, played_s: from ? at - from.at : 0 };
      void player.destroy().finally(() => resolve(result));
    }, 50);
  });
}
