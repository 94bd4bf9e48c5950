// What the page needs of a playback engine. Two exist: hls.js over Media Source Extensions, and the browser's own HLS.
import type { Window } from './follow';
import type { DateRangeTag } from './metadata';
import type { Mode } from './mode';

export type SourceStatus =
  /** Waiting for the first answer. */
  | 'connecting'
  /** The channel answered that it is not live. */
  | 'offline'
  /** Playlists and media arrive. */
  | 'live'
  /** The server stopped answering; attempts go on. */
  | 'reconnecting'
  /** The broadcast ended; the page waits for the next one. */
  | 'ended'
  /** The server wants a right to watch that this address does not carry. */
  | 'denied'
  /** This browser cannot play it, or playing failed for good. */
  | 'failed';

export interface Rung {
  index: number;
  name: string;
  /** 0 when there is no picture. */
  width: number;
  height: number;
  /** 0 when not declared. */
  fps: number;
  kbps: number;
}

export interface PlaybackError {
  at_ms: number;
  kind: string;
  detail: string;
  fatal: boolean;
  /** HTTP status where there was one. */
  code: number | undefined;
}

/** An ID3 tag in the media, at a position of the media clock. */
export interface Id3Tag {
  at_s: number;
  /** How long it holds; 0 when it does not say. */
  for_s: number;
  bytes: Uint8Array;
}

export interface SourceListener {
  /** What was loaded is gone and the media clock begins anew. */
  began(): void;
  statusChanged(status: SourceStatus, detail: string): void;
  rungsChanged(): void;
  failed(error: PlaybackError): void;
  /** Every date range that the playlist lists now. */
  dateRanges(tags: DateRangeTag[]): void;
  id3(tag: Id3Tag): void;
}

export interface Source {
  readonly status: SourceStatus;
  start(): void;
  /** Throws away what is loaded and begins again, at once. A viewer who went back is taken there again. */
  restart(): void;
  /** Plays another playlist instead, from its live position. */
  change(playlist: string): void;
  /** Whether the viewer follows live; one who does not is left where he is. */
  follow(live: boolean): void;
  /** Called often with how long the media clock has been standing though it should run, and whether it ever ran. */
  watch(standing_ms: number, started: boolean): void;
  rungs(): Rung[];
  playing(): Rung | undefined;
  /** The rung chosen by hand, or -1 for automatic. */
  selected(): number;
  select(index: number): void;
  /** Wall time that the picture now shown is stamped with, by PROGRAM-DATE-TIME. */
  playingDateMs(): number | undefined;
  /** Wall time of another position on the media clock. */
  dateMsAt(position_s: number): number | undefined;
  /** Where on the media clock live playback should be. */
  livePosition(): number | undefined;
  /** What can be watched. */
  window(): Window | undefined;
  targetLatencyS(): number | undefined;
  /** The mode that the playlist in use belongs to, whoever chose it. */
  mode(): Mode | undefined;
}

/** Why a multivariant playlist could not be had, by HTTP status (0: no answer). */
export function statusForHttp(code: number): 'offline' | 'denied' | 'reconnecting' {
  if (code === 404 || code === 410) return 'offline';
  if (code === 401 || code === 403) return 'denied';
  return 'reconnecting';
}

/**
 * Whether a broadcast runs at `playlist` now: its first media playlist exists and has no end. Used where the engine
 * itself has stopped, so that a page left open starts again with the next broadcast.
 */
export async function isRunning(playlist: string, signal: AbortSignal): Promise<boolean> {
  const first = await fetch(playlist, { signal, cache: 'no-store' });
  if (!first.ok) return false;
  const uri = (await first.text()).split('\n').find((line) => line.trim() !== '' && !line.startsWith('#'));
  if (uri === undefined) return false;
  const media = await fetch(new URL(uri.trim(), first.url), { signal, cache: 'no-store' });
  return media.ok && !(await media.text()).includes('#EXT-X-ENDLIST');
}
