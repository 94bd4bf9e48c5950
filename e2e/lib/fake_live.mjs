// A broadcast that never ends, made of a few looped seconds and served from memory: for testing the watch page by itself,
// with a window as long as wanted from the first moment on, and metadata placed where the test wants it. Whole segments
// only; what real servers do is tested against the real ones.
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const DIST = fileURLToPath(new URL('../../origin/console/dist/', import.meta.url));
const SEGMENT_S = 2;
/** A whole number of AAC frames, so that the loop has no seam: 3,000 of 1,024 samples at 48 kHz. */
const LOOP_S = 64;
const HOLD_BACK_S = { ultra: 6, low: 9, normal: 25 };
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.txt': 'text/plain' };
const CSP = "default-src 'self'; media-src 'self' blob:; worker-src 'self' blob:; style-src 'self'; img-src 'self' data:";

/** Serves channel `fake` with a window of `window_s`. Returns `{base, requests, dateRange, id3, absence, close}`. */
export async function startFakeLive({ window_s }) {
  const media = await encode();
  const requests = [];
  const ranges = [];
  const tags = [];
  const absences = [];
  const away = (msn) => absences.some(({ from_ms, to_ms }) => msn * SEGMENT_S * 1000 >= from_ms && msn * SEGMENT_S * 1000 < to_ms);
  const first = Math.floor(Date.now() / 1000 / SEGMENT_S) - Math.ceil(window_s / SEGMENT_S);
  const newest = () => Math.floor(Date.now() / 1000 / SEGMENT_S) - 1;

  const playlist = (mode) => {
    const last = newest();
    const start = Math.max(first, last + 1 - Math.ceil(window_s / SEGMENT_S));
    const lines = [
      '#EXTM3U',
      '#EXT-X-VERSION:6',
      `#EXT-X-TARGETDURATION:${SEGMENT_S}`,
      `#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,HOLD-BACK=${HOLD_BACK_S[mode].toFixed(1)}`,
      `#EXT-X-MEDIA-SEQUENCE:${start}`,
      '#EXT-X-MAP:URI="init.mp4"',
      `#EXT-X-PROGRAM-DATE-TIME:${new Date(start * SEGMENT_S * 1000).toISOString()}`,
    ];
    for (let msn = start; msn <= last; msn += 1) {
      if (away(msn)) lines.push('#EXT-X-GAP');
      lines.push(`#EXTINF:${SEGMENT_S.toFixed(5)},`, `${msn}.m4s`);
    }
    return `${[...lines, ...ranges].join('\n')}\n`;
  };

  const held = async (msn) => {
    const wait = (msn + 1) * SEGMENT_S * 1000 - Date.now() + 30;
    if (Number.isFinite(wait) && wait > 0) await new Promise((resolve) => setTimeout(resolve, Math.min(wait, 3 * SEGMENT_S * 1000)));
  };

  const segment = (msn) => {
    const at = msn - first;
    const loop = Math.floor(at / media.segments.length);
    const bytes = moved(media.segments[at % media.segments.length], loop * LOOP_S, media.timescales);
    const inside = tags.filter((tag) => Math.floor(tag.at_ms / 1000 / SEGMENT_S) === msn);
    return Buffer.concat([...inside.map((tag) => emsg((tag.at_ms / 1000) - first * SEGMENT_S, tag.frames)), bytes]);
  };

  const exists = (msn) => msn >= first && msn <= newest() && !away(msn);

  const server = createServer(async (request, response) => {
    const url = new URL(request.url, 'http://fake');
    requests.push({ at_ms: Date.now(), path: url.pathname, query: url.search });
    const send = (type, body) => response.writeHead(200, { 'content-type': type, 'cache-control': 'no-store', 'content-security-policy': CSP }).end(body);
    const name = /^\/live\/fake\/([^/]+)$/.exec(url.pathname)?.[1];
    if (url.pathname === '/watch/fake') send(TYPES['.html'], await readFile(join(DIST, 'watch.html')));
    else if (url.pathname.startsWith('/watch/assets/')) {
      const file = normalize(url.pathname.slice('/watch/'.length));
      send(TYPES[extname(file)] ?? 'application/octet-stream', await readFile(join(DIST, file)).catch(() => ''));
    } else if (name === 'index.m3u8') {
      const mode = url.searchParams.get('mode') ?? 'low';
      send('application/vnd.apple.mpegurl', `#EXTM3U\n#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-STREAM-INF:BANDWIDTH=500000,CODECS="${media.codecs}",RESOLUTION=320x180,FRAME-RATE=24.000\n${mode}.m3u8\n`);
    } else if (name?.endsWith('.m3u8') && name.slice(0, -5) in HOLD_BACK_S) {
      await held(Number(url.searchParams.get('_HLS_msn') ?? NaN));
      send('application/vnd.apple.mpegurl', playlist(name.slice(0, -5)));
    } else if (name === 'init.mp4') send('video/mp4', media.init);
    else if (/^\d+\.m4s$/.test(name ?? '') && exists(Number.parseInt(name, 10))) send('video/iso.segment', segment(Number.parseInt(name, 10)));
    else response.writeHead(404).end();
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    base: `http://127.0.0.1:${server.address().port}`,
    requests,
    /** Lists a date range from now on; `attributes` beside ID, CLASS and START-DATE are written as given. */
    dateRange: ({ id, cls, at_ms, attributes = '' }) => ranges.push(`#EXT-X-DATERANGE:ID="${id}",CLASS="${cls}",START-DATE="${new Date(at_ms).toISOString()}"${attributes === '' ? '' : `,${attributes}`}`),
    /** Puts an ID3 tag with one TXXX frame into the segment that is played at `at_ms`. */
    id3: ({ at_ms, description, text }) => tags.push({ at_ms, frames: [3, ...Buffer.from(`${description}\0${text}`)] }),
    /** The encoder is away in that time: the playlist goes on with gaps. */
    absence: (from_ms, to_ms) => absences.push({ from_ms, to_ms }),
    close: () => new Promise((resolve) => {
      server.close(resolve);
      server.closeAllConnections();
    }),
  };
}

async function encode() {
  const folder = await mkdtemp(join(tmpdir(), 'sigma-fake-'));
  try {
    await run('ffmpeg', [
      ...['-hide_banner', '-nostdin', '-loglevel', 'error', '-f', 'lavfi', '-i', `testsrc2=size=320x180:rate=24:duration=${LOOP_S}`],
      ...['-f', 'lavfi', '-i', `sine=frequency=440:sample_rate=48000:duration=${LOOP_S}`],
      ...['-c:v', 'libx264', '-preset', 'ultrafast', '-tune', 'zerolatency', '-pix_fmt', 'yuv420p', '-profile:v', 'baseline', '-b:v', '300k', '-g', '48', '-sc_threshold', '0'],
      ...['-c:a', 'aac', '-b:a', '48k', '-frames:a', '3000', '-f', 'hls', '-hls_time', String(SEGMENT_S), '-hls_list_size', '0', '-hls_segment_type', 'fmp4'],
      ...['-hls_fmp4_init_filename', 'init.mp4', '-hls_segment_filename', join(folder, '%03d.m4s'), join(folder, 'list.m3u8')],
    ]);
    const names = (await readdir(folder)).filter((name) => name.endsWith('.m4s')).sort().slice(0, LOOP_S / SEGMENT_S);
    const init = await readFile(join(folder, 'init.mp4'));
    const segments = await Promise.all(names.map((name) => readFile(join(folder, name))));
    return { init, segments, timescales: timescales(init), codecs: 'avc1.42C00D,mp4a.40.2' };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

// Boxes: `{type, start, body, end}` of what lies between `from` and `to`.
function boxes(bytes, from = 0, to = bytes.length) {
  const found = [];
  for (let at = from; at + 8 <= to;) {
    const size = bytes.readUInt32BE(at);
    if (size < 8) break;
    found.push({ type: bytes.toString('latin1', at + 4, at + 8), start: at, body: at + 8, end: at + size });
    at += size;
  }
  return found;
}

function inside(bytes, parent, type) {
  return boxes(bytes, parent.body, parent.end).filter((box) => box.type === type);
}

function timescales(init) {
  const [moov] = boxes(init).filter((box) => box.type === 'moov');
  return new Map(inside(init, moov, 'trak').map((trak) => {
    const [tkhd] = inside(init, trak, 'tkhd');
    const [mdhd] = inside(init, inside(init, trak, 'mdia')[0], 'mdhd');
    const id = init.readUInt32BE(tkhd.body + (init[tkhd.body] === 1 ? 20 : 12));
    return [id, init.readUInt32BE(mdhd.body + (init[mdhd.body] === 1 ? 20 : 12))];
  }));
}

/** The same segment, `by_s` later. */
function moved(segment, by_s, scales) {
  const bytes = Buffer.from(segment);
  for (const moof of boxes(bytes).filter((box) => box.type === 'moof')) {
    for (const traf of inside(bytes, moof, 'traf')) {
      const id = bytes.readUInt32BE(inside(bytes, traf, 'tfhd')[0].body + 4);
      const at = inside(bytes, traf, 'tfdt')[0].body;
      const by = by_s * scales.get(id);
      if (bytes[at] === 1) bytes.writeBigUInt64BE(bytes.readBigUInt64BE(at + 4) + BigInt(by), at + 4);
      else bytes.writeUInt32BE(bytes.readUInt32BE(at + 4) + by, at + 4);
    }
  }
  return bytes;
}

function box(type, ...parts) {
  const body = Buffer.concat(parts);
  const head = Buffer.alloc(8);
  head.writeUInt32BE(body.length + 8, 0);
  head.write(type, 4, 'latin1');
  return Buffer.concat([head, body]);
}

/** An event message (version 1) with an ID3v2.4 tag of one TXXX frame, at `at_s` of the media's own timeline. */
function emsg(at_s, frame) {
  const seven = (value) => [(value >> 21) & 0x7f, (value >> 14) & 0x7f, (value >> 7) & 0x7f, value & 0x7f];
  const tag = Buffer.from([...Buffer.from('ID3'), 4, 0, 0, ...seven(frame.length + 10), ...Buffer.from('TXXX'), ...seven(frame.length), 0, 0, ...frame]);
  const head = Buffer.alloc(24);
  head[0] = 1;
  head.writeUInt32BE(1000, 4);
  head.writeBigUInt64BE(BigInt(Math.round(at_s * 1000)), 8);
  head.writeUInt32BE(0xffffffff, 16);
  head.writeUInt32BE(1, 20);
  return box('emsg', head, Buffer.from('https://aomedia.org/emsg/ID3\0\0'), tag);
}
