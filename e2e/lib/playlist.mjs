// Reading playlists, only as far as the tests look at them.

/** The URIs of the variants of a Multivariant Playlist with their attributes, in order. */
export function parseMultivariant(text) {
  const lines = text.split(/\r?\n/);
  const variants = [];
  lines.forEach((line, at) => {
    if (!line.startsWith('#EXT-X-STREAM-INF:')) return;
    variants.push({ uri: lines[at + 1], ...attributes(line) });
  });
  return variants;
}

/** `{media_sequence, discontinuity_sequence, segments, open_parts, ended}`; a segment: `{msn, uri, duration_s, discontinuity, gap, parts}`. */
export function parseMedia(text) {
  const playlist = { media_sequence: 0, discontinuity_sequence: 0, segments: [], open_parts: 0, ended: false };
  let next = emptySegment();
  for (const line of text.split(/\r?\n/)) {
    if (line.startsWith('#EXT-X-MEDIA-SEQUENCE:')) playlist.media_sequence = Number(line.slice(22));
    else if (line.startsWith('#EXT-X-DISCONTINUITY-SEQUENCE:')) playlist.discontinuity_sequence = Number(line.slice(30));
    else if (line === '#EXT-X-DISCONTINUITY') next.discontinuity = true;
    else if (line === '#EXT-X-GAP') next.gap = true;
    else if (line === '#EXT-X-ENDLIST') playlist.ended = true;
    else if (line.startsWith('#EXT-X-PART:')) next.parts += 1;
    else if (line.startsWith('#EXTINF:')) next.duration_s = Number.parseFloat(line.slice(8));
    else if (line !== '' && !line.startsWith('#')) {
      playlist.segments.push({ ...next, uri: line, msn: playlist.media_sequence + playlist.segments.length });
      next = emptySegment();
    }
  }
  playlist.open_parts = next.parts;
  playlist.open_discontinuity = next.discontinuity;
  return playlist;
}

/** How many discontinuities the stream has had since its beginning, the one before the open segment included. */
export function discontinuities(playlist) {
  return playlist.discontinuity_sequence + playlist.segments.filter((one) => one.discontinuity).length + (playlist.open_discontinuity ? 1 : 0);
}

/** The MSN and part that come next, as one number that only grows. */
export function tip(playlist) {
  return (playlist.media_sequence + playlist.segments.length) * 1000 + playlist.open_parts;
}

/** Fetches a playlist of a channel over an edge's plain port. Returns `{url, text}`; throws on any other status than 200. */
export async function fetchText(url) {
  const answer = await fetch(url, { cache: 'no-store', signal: AbortSignal.timeout(10_000) });
  if (!answer.ok) throw new Error(`${answer.status} for ${url}`);
  return { url: answer.url, text: await answer.text() };
}

/** The variants of a channel, in its own latency mode or another, with absolute addresses. */
export async function variantsOf(base, channel, mode) {
  const { url, text } = await fetchText(`${base}/live/${channel}/index.m3u8${mode === undefined ? '' : `?mode=${mode}`}`);
  return parseMultivariant(text).map((one) => ({ ...one, url: new URL(one.uri, url).href }));
}

export async function mediaPlaylist(url) {
  return parseMedia((await fetchText(url)).text);
}

function emptySegment() {
  return { duration_s: 0, discontinuity: false, gap: false, parts: 0 };
}

function attributes(line) {
  const found = {};
  for (const [, name, quoted, plain] of line.matchAll(/([A-Z0-9-]+)=(?:"([^"]*)"|([^,]*))/g)) found[name] = quoted ?? plain;
  return found;
}
