// A headless Chromium, and watch pages in it.
import { createHash } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { until } from './until.mjs';

const EXECUTABLE = process.env.SIGMA_CHROMIUM ?? '/usr/bin/chromium';
export const OUT = process.env.SIGMA_E2E_OUT ?? fileURLToPath(new URL('../out', import.meta.url));

export const DESKTOP = { width: 1280, height: 900 };
export const PHONE = { width: 360, height: 740 };

// No sandbox: tests run as root in CI. No background traffic: the network may be closed, and refused look-ups cost time
// that would count as latency.
const ARGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--autoplay-policy=no-user-gesture-required',
  '--mute-audio',
];

/** Starts a browser; close it with `.close()`. */
export function openBrowser() {
  return chromium.launch({ executablePath: EXECUTABLE, headless: true, args: [...ARGS, '--disable-quic'] });
}

/**
 * Starts a browser that reaches `base` over QUIC alone; close it with `.close()`. Chromium never takes HTTP/3 by Alt-Svc from
 * a server whose certificate it was told to ignore, so it is told to begin with it, and to trust this server's key.
 */
export async function openQuicBrowser(base) {
  const { hostname, host, port } = new URL(base);
  return chromium.launchPersistentContext('', {
    executablePath: EXECUTABLE,
    headless: true,
    viewport: DESKTOP,
    args: [
      ...ARGS,
      `--origin-to-force-quic-on=${host}`,
      `--ignore-certificate-errors-spki-list=${await spkiOf(hostname, port)}`,
      `--host-resolver-rules=MAP ${hostname} 127.0.0.1`,
    ],
  });
}

function spkiOf(host, port) {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, rejectUnauthorized: false, servername: host }, () => {
      const key = socket.getPeerX509Certificate().publicKey.export({ type: 'spki', format: 'der' });
      socket.destroy();
      resolve(createHash('sha256').update(key).digest('base64'));
    });
    socket.once('error', reject);
  });
}

/** Where the watch page of a channel is, through edge number `edge`, over TLS; `mode` is the latency mode asked for. */
export function watchUrl(ready, channel, { edge = 0, mode } = {}) {
  return `${ready.edges[edge].https}/watch/${channel}${mode === undefined ? '' : `?mode=${mode}`}`;
}

export class Watcher {
  /** Uncaught exceptions and console errors that are not the browser's own notes about failed requests. */
  faults = [];
  navigations = 0;

  constructor(context, page) {
    this.context = context;
    this.page = page;
    page.on('pageerror', (error) => this.faults.push(`exception: ${error.message}`));
    page.on('console', (message) => {
      if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) {
        this.faults.push(`console: ${message.text()}`);
      }
    });
    page.on('framenavigated', (frame) => {
      if (frame === page.mainFrame()) this.navigations += 1;
    });
  }

  /** Opens `url` in a fresh context (own cache and storage). The certificate is a development one. */
  static async open(browser, url, { viewport = DESKTOP, phone = false } = {}) {
    const context = await browser.newContext({
      viewport,
      ignoreHTTPSErrors: true,
      deviceScaleFactor: phone ? 2 : 1,
      isMobile: phone,
      hasTouch: phone,
    });
    return Watcher.in(context, url);
  }

  /** Opens `url` in a context of the caller's. */
  static async in(context, url) {
    const watcher = new Watcher(context, await context.newPage());
    await watcher.page.goto(url, { waitUntil: 'domcontentloaded' });
    return watcher;
  }

  snapshot() {
    return this.page.evaluate(() => window.__sigma.snapshot());
  }

  /** Waits until `test(snapshot)` holds and returns the snapshot it held for. */
  async until(what, within_ms, test) {
    try {
      return await until(what, within_ms, async () => {
        const now = await this.page.evaluate(() => window.__sigma?.snapshot());
        if (now && test(now)) return now;
        this.last = now;
        return undefined;
      });
    } catch (error) {
      throw new Error(`${error.message}\nplayer: ${JSON.stringify(this.last)}\nfaults: ${this.faults.join('; ')}`);
    }
  }

  /** Waits until the media clock has gone on by `seconds` from `from` (by default from now). */
  async played(seconds, within_ms, from) {
    const start = from ?? (await this.snapshot());
    return this.until(`${seconds} s played`, within_ms, (s) => s.current_time >= start.current_time + seconds);
  }

  playing(within_ms) {
    return this.until('the picture to move', within_ms, (s) => s.state === 'playing' && s.startup_ms !== null);
  }

  async screenshot(name) {
    await mkdir(OUT, { recursive: true });
    await this.page.screenshot({ path: join(OUT, `${name}.png`), fullPage: true });
  }

  close() {
    return this.context.close();
  }
}
