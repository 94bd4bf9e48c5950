// Where a picture that stands can go on: never into a gap, where there is nothing to fetch (hls.js asks for it again and
// again, every few milliseconds). Pure.

/** A segment of the playlist on the media clock. */
export interface Stretch {
  start_s: number;
  end_s: number;
  /** EXT-X-GAP: listed, but not to be had. */
  gap: boolean;
}

/** Just inside a segment, so that rounding does not lead into the one before. */
const INSIDE_S = 0.1;

/**
 * Where to go from `position_s`, which stands: to `live_s`, or if that is in a gap to where the newest media begins.
 * Undefined while less than `ahead_s` of media is listed after the position and the newest gap: so long a player is left
 * alone to find its way.
 */
export function landing(list: readonly Stretch[], position_s: number, live_s: number, ahead_s: number): number | undefined {
  let last = list.length - 1;
  while (list[last]?.gap === true) last -= 1;
  const newest = list[last];
  if (!newest) return undefined;
  let first = last;
  while (list[first - 1]?.gap === false) first -= 1;
  const begin_s = (list[first] ?? newest).start_s;
  if (newest.end_s - Math.max(begin_s, position_s) < ahead_s) return undefined;
  if (live_s >= begin_s && live_s < newest.end_s) return live_s;
  const at = list.find(({ start_s, end_s }) => live_s >= start_s && live_s < end_s);
  return at?.gap === false ? live_s : Math.max(begin_s + INSIDE_S, position_s + INSIDE_S);
}
