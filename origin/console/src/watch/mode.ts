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

/**
 * `target_s` behind live is where a viewer who follows live should be. One who went back on purpose is left alone: no
 * faster playback and no jump.
 */
export function catchUp(target_s: number, followsLive: boolean): CatchUp {
  if (!followsLive) return { rate_max: 1, latency_max_s: Infinity };
  // 10 % is not heard. Nothing is gained by hurrying somebody who watches many seconds late anyway.
  const rate_max = target_s < 5 ? 1.1 : 1.05;
  return { rate_max, latency_max_s: target_s + Math.max(10, target_s * 0.6) };
}

/** Within this of the live position, in seconds, a viewer counts as watching live. */
export function liveSlackS(target_s: number): number {
  return Math.max(1.5, target_s * 0.15);
}
