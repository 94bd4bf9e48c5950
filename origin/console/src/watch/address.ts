// Where the page is and what it therefore plays. Pure.

const CHANNEL = /^\/watch\/([a-z0-9_-]{1,64})\/?$/;

/** Query keys of the page that the multivariant playlist understands too. */
const PASSED_ON = ['mode', 'token'];

export interface Address {
  channel: string;
  /** Host-relative address of the multivariant playlist. */
  playlist: string;
}

/** Reads the page's own path and query; undefined when the path names no valid channel. */
export function addressOf(path: string, query: string): Address | undefined {
  const channel = CHANNEL.exec(path)?.[1];
  if (channel === undefined) return undefined;
  const given = new URLSearchParams(query);
  const kept = new URLSearchParams();
  for (const key of PASSED_ON) {
    const value = given.get(key);
    if (value !== null) kept.set(key, value);
  }
  const text = kept.toString();
  const suffix = text === '' ? '' : `?${text}`;
  return { channel, playlist: `/live/${channel}/index.m3u8${suffix}` };
}
