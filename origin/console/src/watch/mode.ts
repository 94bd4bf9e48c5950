// Latency modes: their names, and what of a player's limits depends on the target. Pure.

export const MODES = ['ultra', 'low', 'normal'] as const;

/** How close to live a viewer watches. Each is another set of playlists over the same media. */
export type Mode = (typeof MODES)[number];

export const MODE_NAMES: Readonly<Record<Mode, string>> = { ultra: 'Ultra low', low: 'Low', normal: 'Normal' };

/** A hold-back from here on is meant as `normal`: between the 9 s and the 25 s that the two modes aim at. */
const NORMAL_FROM_S = 15;

export function modeOf(text: string | null): Mode | undefined {
  return MODES.find((mode) => mode === text);
}

/** Which mode a playlist belongs to, by what it offers: parts are ultra, whole segments are told apart by the target. */
export function modeOfPlaylist(hasParts: boolean, target_s: number): Mode {
  if (hasParts) return 'ultra';
  return target_s < NORMAL_FROM_S ? 'low' : 'normal';
}

/** What the engine may do about a viewer who is not where live playback should be. */
export interface CatchUp {
  /** The highest playback rate. */
  rate_max: number;
  /** Further behind live than this, in seconds, playback jumps to live. */
  latency_max_s: number;
}

/** What a playlist says about its pace, in seconds. */
export interface Pace {
  /** How far behind live a viewer who follows live should be. */
  target_s: number;
  /** Target duration. */
  segment_s: number;
  /** How much the playlist grows at a time: a part, or a segment. */
  step_s: number;
}

/** Nobody who follows live is left further behind the target than this. */
const FALL_BEHIND_MAX_S = 15;
/** Nearer to the target than this no jump is worth its cost. */
const FALL_BEHIND_MIN_S = 1.5;

/** A viewer who went back on purpose is left alone: no faster playback and no jump. */
export function catchUp({ target_s, segment_s, step_s }: Pace, followsLive: boolean): CatchUp {
  if (!followsLive) return { rate_max: 1, latency_max_s: Infinity };
  // 10 % is not heard; with whole segments a start may be a segment too late, which this makes good in 20 s.
  const rate_max = target_s < NORMAL_FROM_S ? 1.1 : 1.05;
  // hls.js plays faster only within target + segment of the target. Beyond that it would stay behind for ever, so that is
  // where the jump comes; it measures the one from now and the other from the last step.
  const caughtUp_s = target_s + segment_s - step_s;
  return { rate_max, latency_max_s: target_s + Math.min(FALL_BEHIND_MAX_S, Math.max(FALL_BEHIND_MIN_S, caughtUp_s)) };
}

/** Within this of the live position, in seconds, a viewer counts as watching live: whole segments come in large steps. */
export function liveSlackS(target_s: number): number {
  return target_s < 5 ? 1.5 : Math.max(2.5, target_s * 0.15);
}
