// Whether a viewer follows live or has gone back on purpose, and where in the window a position may be. Pure.
import { liveSlackS } from './mode';

/** What can be watched, in seconds of the media clock. */
export interface Window {
  start_s: number;
  /** Where live playback should be, or the end of a broadcast that is over. */
  end_s: number;
}

/** A shorter window than this is no recording to go back into: no seek bar. */
export const SEEK_BAR_FROM_S = 60;

/** Somebody further behind live than this after a seek or a pause is there on purpose. */
const ON_PURPOSE_S = 3;

/**
 * The window's beginning moves on while the media from there is fetched, and a player that stands before it is thrown to
 * live: what goes to the beginning goes this far behind it, or half of a short window.
 */
const START_MARGIN_S = 8;

export function hasSeekBar(window: Window | undefined): window is Window {
  return window !== undefined && window.end_s - window.start_s >= SEEK_BAR_FROM_S;
}

/** The earliest position that playback can go to and stay. */
export function earliest(window: Window): number {
  return window.start_s + Math.min(START_MARGIN_S, Math.max(0, window.end_s - window.start_s) / 2);
}

/** The nearest position that playback can go to and stay. */
export function within(window: Window, position_s: number): number {
  return Math.min(window.end_s, Math.max(earliest(window), position_s));
}

export class Follow {
  private behind = false;

  get live(): boolean {
    return !this.behind;
  }

  /** The viewer asked for this position, or goes on from it after a pause. */
  wentTo(position_s: number, live_s: number | undefined, target_s: number): void {
    this.behind = live_s !== undefined && live_s - position_s > Math.max(ON_PURPOSE_S, liveSlackS(target_s));
  }

  /** The viewer stops the picture: it stays where it is. */
  paused(): void {
    this.behind = true;
  }

  toLive(): void {
    this.behind = false;
  }

  /**
   * Called while playing. Returns where playback has to go because what it stood on has left the window; reaching live
   * by playing ends being behind.
   */
  playing(position_s: number, window: Window): number | undefined {
    if (!this.behind) return undefined;
    if (position_s >= window.end_s - 0.25) {
      this.behind = false;
      return undefined;
    }
    return position_s < window.start_s ? earliest(window) : undefined;
  }
}
