// Where the page is and what it therefore plays. Pure.
import { modeOf, type Mode } from './mode';

const CHANNEL = /^\/watch\/([a-z0-9_-]{1,64})\/?$/;

export interface Address {
  channel: string;
  /** The latency mode asked for; undefined for the channel's own. */
  mode: Mode | undefined;
  /** The right to watch, passed on to the server. */
  token: string | undefined;
}

/** Reads the page's own path and query; undefined when the path names no valid channel. */
export function addressOf(path: string, query: string): Address | undefined {
  const channel = CHANNEL.exec(path)?.[1];
  if (channel === undefined) return undefined;
  const given = new URLSearchParams(query);
  return { channel, mode: modeOf(given.get('mode')), token: given.get('token') ?? undefined };
}

/** Host-relative address of the multivariant playlist. */
export function playlistOf({ channel, mode, token }: Address): string {
  const kept = new URLSearchParams();
  if (mode !== undefined) kept.set('mode', mode);
  if (token !== undefined) kept.set('token', token);
  const text = kept.toString();
  return `/live/${channel}/index.m3u8${text === '' ? '' : `?${text}`}`;
}

/** The page's own query with another mode; everything else in it stays. */
export function queryWithMode(query: string, mode: Mode): string {
  const changed = new URLSearchParams(query);
  changed.set('mode', mode);
  return `?${changed.toString()}`;
}
