// Counts stalls the way the project defines them: the player's clock does not advance for more than 100 ms while it
// should play. Pure: the caller passes the time and the media clock in.

/** A clock that stands still this long while it should run is a stall. */
export const STALL_AFTER_MS = 100;

/** Between two samples further apart than this the timer was throttled, so only the missing media time is judged. */
const SPARSE_SAMPLE_MS = 250;

export interface ClockSample {
  /** Monotonic wall time. */
  now_ms: number;
  /** The media element's currentTime. */
  media_s: number;
  /** The media element's playbackRate. */
  rate: number;
  /** False while paused, ended, before the first frame, or during a seek the viewer asked for. */
  should_play: boolean;
}

export interface StallTotals {
  count: number;
  total_ms: number;
  /** True while a stall goes on. */
  stalled: boolean;
}

export class StallMeter {
  private last: ClockSample | undefined;
  private advancedAtMs = 0;
  private count = 0;
  private closedMs = 0;
  private openMs = 0;

  /** Takes one sample; returns true when this sample began a new stall. */
  sample(next: ClockSample): boolean {
    const last = this.last;
    this.last = next;
    if (!next.should_play || !last?.should_play) {
      this.close();
      this.advancedAtMs = next.now_ms;
      return false;
    }
    const elapsedMs = next.now_ms - last.now_ms;
    const moved = next.media_s !== last.media_s;
    if (moved && elapsedMs <= SPARSE_SAMPLE_MS) {
      this.close();
      this.advancedAtMs = next.now_ms;
      return false;
    }
    if (moved) return this.judgeSparse(last, next, elapsedMs);
    const standingMs = next.now_ms - this.advancedAtMs;
    if (standingMs <= STALL_AFTER_MS) return false;
    const began = this.openMs === 0;
    if (began) this.count += 1;
    this.openMs = standingMs;
    return began;
  }

  totals(): StallTotals {
    return { count: this.count, total_ms: this.closedMs + this.openMs, stalled: this.openMs > 0 };
  }

  private judgeSparse(last: ClockSample, next: ClockSample, elapsedMs: number): boolean {
    const playedMs = Math.max(0, ((next.media_s - last.media_s) * 1000) / Math.max(last.rate, next.rate, 0.1));
    const missingMs = elapsedMs - playedMs;
    this.advancedAtMs = next.now_ms;
    if (this.openMs > 0) {
      this.openMs += Math.max(0, missingMs);
      this.close();
      return false;
    }
    if (missingMs <= STALL_AFTER_MS) return false;
    this.count += 1;
    this.closedMs += missingMs;
    return true;
  }

  private close(): void {
    this.closedMs += this.openMs;
    this.openMs = 0;
  }
}
