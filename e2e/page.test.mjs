// The watch page by itself, against a broadcast from memory: modes, the window, timed metadata. What depends on the real
// servers is in the other files.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { openBrowser, Watcher } from './lib/browser.mjs';
import { startFakeLive } from './lib/fake_live.mjs';

const WINDOW_S = 1_800;
const PHONE = { width: 390, height: 844 };
/** How far from its moment an event may come: the page looks every 50 ms, the timer of a busy machine comes late. */
const IN_STEP_MS = 250;

// Nothing here is measured to the millisecond, and most of it is waiting.
describe('watch page', { concurrency: 3 }, () => {
  let fake;
  let browser;

  before(async () => {
    fake = await startFakeLive({ window_s: WINDOW_S });
    browser = await openBrowser();
  });

  after(async () => {
    await browser?.close();
    await fake?.close();
  });

  const open = (query = '', options) => Watcher.open(browser, `${fake.base}/watch/fake${query}`, options);

  test('back into the window it plays at its own pace and stays there; LIVE returns', async () => {
    const viewer = await open('', { viewport: { width: 1280, height: 800 } });
    const first = await viewer.playing(15_000);
    assert.ok(first.follows_live);
    const length = first.dvr.end_s - first.dvr.start_s;
    assert.ok(Math.abs(length - WINDOW_S) < 15, `the window is ${length} s long`);
    await viewer.screenshot('page-live');

    await viewer.page.locator('#start-over').click();
    const back = await viewer.until('the beginning of the window', 10_000, (s) => s.state === 'playing' && s.dvr.behind_live_s > WINDOW_S - 40);
    assert.equal(back.follows_live, false);
    await viewer.page.evaluate(() => {
      window.__rates = new Set();
      window.__seeks = 0;
      const video = document.querySelector('video');
      video.addEventListener('seeking', () => (window.__seeks += 1));
      video.addEventListener('ratechange', () => window.__rates.add(video.playbackRate));
    });
    const later = await viewer.played(8, 20_000, back);
    assert.ok(Math.abs(later.dvr.behind_live_s - back.dvr.behind_live_s) < 1.5, `${back.dvr.behind_live_s} s became ${later.dvr.behind_live_s} s`);
    assert.deepEqual(await viewer.page.evaluate(() => [[...window.__rates], window.__seeks]), [[], 0]);
    assert.equal(later.playback_rate, 1);
    assert.equal(later.stalls, first.stalls, 'no stall');
    await viewer.screenshot('page-start-over');

    await viewer.page.locator('#live').click();
    const live = await viewer.until('live', 10_000, (s) => s.state === 'playing' && s.follows_live && s.dvr.behind_live_s < 2);
    assert.ok(live.latency_s < 14, `${live.latency_s} s`);
    assert.deepEqual(viewer.faults, []);
    assert.equal(live.error_count, 0, JSON.stringify(live.errors));
    await viewer.close();
  });

  test('the seek bar works by pointer, by touch and by keyboard, and says where it is', async () => {
    const viewer = await open('', { viewport: PHONE, phone: true });
    await viewer.playing(15_000);
    const width = await viewer.page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
    assert.ok(width[0] <= width[1], `the page is ${width[0]} px wide in a window of ${width[1]} px`);
    const bar = viewer.page.locator('#bar');
    const [stage, shown] = [await viewer.page.locator('#stage').boundingBox(), await bar.boundingBox()];
    assert.ok(shown.x >= stage.x && shown.x + shown.width <= stage.x + stage.width + 1);

    const seek = viewer.page.locator('#seek');
    const box = await seek.boundingBox();
    const y = box.y + box.height / 2;
    await viewer.page.touchscreen.tap(box.x + box.width / 2, y);
    const half = await viewer.until('the middle', 10_000, (s) => s.state === 'playing' && Math.abs(s.dvr.behind_live_s - WINDOW_S / 2) < 60);
    assert.equal(half.follows_live, false);

    await viewer.page.mouse.move(box.x + box.width / 2, y);
    await viewer.page.mouse.down();
    await viewer.page.mouse.move(box.x + box.width * 0.25, y, { steps: 5 });
    assert.match(await viewer.page.locator('#seek-tip').innerText(), /\d{2}:\d{2}:\d{2}.*·.*\d+:\d{2}/);
    await viewer.screenshot('page-drag-phone');
    await viewer.page.mouse.up();
    // A thumb keeps the distance from its middle at which it was taken.
    await viewer.until('a quarter', 10_000, (s) => s.state === 'playing' && Math.abs(s.dvr.behind_live_s - WINDOW_S * 0.75) < 120);
    assert.equal(await viewer.page.locator('#seek-tip').isHidden(), true);

    await seek.focus();
    const before = await viewer.snapshot();
    await viewer.page.keyboard.press('PageUp');
    const minute = await viewer.until('a minute on', 10_000, (s) => s.state === 'playing' && s.current_time > before.current_time + 55);
    assert.ok(minute.current_time < before.current_time + 75);
    await viewer.page.keyboard.press('ArrowLeft');
    await viewer.until('five seconds back', 10_000, (s) => s.state === 'playing' && s.current_time < minute.current_time);
    assert.match(await seek.getAttribute('aria-valuetext'), /minutes? \d+ seconds? behind live, \d{2}:\d{2}:\d{2}/);
    await viewer.page.keyboard.press('Home');
    await viewer.until('the beginning', 10_000, (s) => s.state === 'playing' && s.dvr.behind_live_s > WINDOW_S - 40);
    await viewer.page.keyboard.press('End');
    await viewer.until('live', 10_000, (s) => s.state === 'playing' && s.follows_live && s.dvr.behind_live_s < 2);
    assert.deepEqual(viewer.faults, []);
    await viewer.close();
  });

  test('a pause keeps the position, however long, and nothing hurries afterwards', async () => {
    const viewer = await open();
    await viewer.playing(15_000);
    await viewer.page.keyboard.press('Space');
    const paused = await viewer.until('the pause', 3_000, (s) => s.state === 'paused');
    await viewer.until('being far behind', 25_000, (s) => s.dvr.behind_live_s > 11);
    assert.equal((await viewer.snapshot()).current_time, paused.current_time);
    await viewer.page.keyboard.press('Space');
    const on = await viewer.played(4, 10_000, paused);
    assert.ok(on.current_time < paused.current_time + 7, `went from ${paused.current_time} to ${on.current_time}`);
    assert.equal(on.playback_rate, 1);
    assert.equal(on.follows_live, false);
    await viewer.page.keyboard.press('l');
    await viewer.until('live', 10_000, (s) => s.state === 'playing' && s.follows_live && s.dvr.behind_live_s < 2);
    await viewer.close();
  });

  test('the latency menu loads the other mode and keeps the rest of the address', async () => {
    const viewer = await open('?token=a%2Bb&utm=x');
    const own = await viewer.playing(15_000);
    assert.equal(own.mode, 'low', 'the channel\'s own mode is told by its playlist');
    const seen = fake.requests.length;
    await viewer.page.locator('#mode').selectOption('normal');
    const normal = await viewer.until('the other mode', 15_000, (s) => s.mode === 'normal' && s.state === 'playing' && s.latency_s > 20);
    assert.ok(normal.latency_s < 30, `${normal.latency_s} s`);
    assert.ok(normal.target_latency_s > 20);
    assert.equal(new URL(viewer.page.url()).search, '?token=a%2Bb&utm=x&mode=normal');
    const asked = fake.requests.slice(seen).find((one) => one.path.endsWith('/index.m3u8'));
    assert.equal(asked.query, '?mode=normal&token=a%2Bb');
    await viewer.page.reload();
    await viewer.until('the mode after a reload', 15_000, (s) => s.mode === 'normal' && s.state === 'playing' && s.latency_s > 20);
    await viewer.page.locator('#mode').selectOption('ultra');
    await viewer.until('nearer again', 15_000, (s) => s.mode === 'ultra' && s.state === 'playing' && s.latency_s < 12);
    assert.deepEqual(viewer.faults, []);
    await viewer.close();
  });

  test('timed metadata comes with its moment of the picture; a notice is shown as text', async () => {
    const viewer = await open('?mode=ultra');
    await viewer.playing(15_000);
    await viewer.page.evaluate(() => {
      window.__told = [];
      document.querySelector('video').addEventListener('sigma:timed-metadata', (event) => {
        window.__told.push({ ...event.detail, picture_ms: window.__sigma.snapshot().playing_date_ms });
      });
    });
    const html = '<img src=x onerror="window.__owned=1"> & Grüße';
    const at_ms = (Math.floor(Date.now() / 2000) + 2) * 2000;
    fake.dateRange({ id: 'old', cls: 'com.sigma.notice', at_ms: at_ms - 60_000, attributes: 'X-TEXT="long ago"' });
    fake.dateRange({ id: 'poll-1', cls: 'com.example.poll', at_ms: at_ms + 300, attributes: 'X-COM-EXAMPLE-Q="7"' });
    fake.dateRange({ id: 'notice-1', cls: 'com.sigma.notice', at_ms: at_ms + 900, attributes: 'DURATION=6.000,X-TEXT="We start in a minute"' });
    fake.id3({ at_ms: at_ms + 4_400, description: 'notice', text: html });
    fake.id3({ at_ms: at_ms + 5_000, description: 'score', text: '2:1' });

    const card = viewer.page.locator('#card-text');
    await viewer.until('the notice', 25_000, (s) => s.timed_metadata.some((item) => item.id === 'notice-1'));
    assert.equal(await card.innerText(), 'We start in a minute');
    await viewer.screenshot('page-notice');
    await viewer.until('the last', 15_000, (s) => s.timed_metadata.length >= 4);
    assert.equal(await card.innerText(), html);
    assert.equal(await viewer.page.evaluate(() => document.querySelector('#card-text').childElementCount), 0);
    assert.equal(await viewer.page.evaluate(() => window.__owned), undefined);

    const told = await viewer.page.evaluate(() => window.__told);
    assert.deepEqual(told.map((one) => [one.kind, one.class, one.text]), [
      ['daterange', 'com.example.poll', ''],
      ['daterange', 'com.sigma.notice', 'We start in a minute'],
      ['id3', 'notice', html],
      ['id3', 'score', '2:1'],
    ]);
    assert.equal(told[0].attributes['X-COM-EXAMPLE-Q'], '7');
    for (const one of told) {
      const late = one.picture_ms - Date.parse(one.start_date);
      assert.ok(late >= -60 && late < IN_STEP_MS, `${one.kind} ${one.class} came ${late} ms after its moment`);
    }
    await viewer.page.locator('#card-close').click();
    assert.equal(await viewer.page.locator('#card').isHidden(), true);

    await viewer.page.keyboard.press('ArrowLeft');
    await viewer.page.keyboard.press('ArrowLeft');
    await viewer.until('it to be told again after going back', 20_000, (s) => s.timed_metadata.filter((item) => item.class === 'score').length === 2);
    assert.deepEqual(viewer.faults, []);
    await viewer.close();
  });

  test('the encoder away for ten seconds: the picture goes on with what comes after the gaps', async () => {
    const own = await startFakeLive({ window_s: 120 });
    try {
      const viewer = await Watcher.open(browser, `${own.base}/watch/fake?mode=ultra`);
      await viewer.playing(15_000);
      const from_ms = (Math.floor(Date.now() / 2000) + 1) * 2000;
      const to_ms = from_ms + 10_000;
      own.absence(from_ms, to_ms);
      await viewer.until('the end of what there is', 20_000, (s) => s.playing_date_ms > from_ms - 400);
      const back = await viewer.until('the picture after the gaps', 25_000, (s) => s.state === 'playing' && s.playing_date_ms > to_ms + 500);
      assert.ok(back.now_ms < to_ms + 12_000, `${back.now_ms - to_ms} ms after the encoder`);
      const on = await viewer.played(4, 10_000, back);
      assert.equal(on.stalls, back.stalls, 'no stall once it is back');
      assert.ok(on.latency_s < 12, `${on.latency_s} s`);
      assert.equal(viewer.navigations, 1);
      assert.deepEqual(viewer.faults, []);
      await viewer.close();
    } finally {
      await own.close();
    }
  });
});
