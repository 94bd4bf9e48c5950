// The read-only view of the player that tests and measurements take through `window.__sigma.snapshot()`.
import type { TimedMetadata } from './metadata';
import type { Mode } from './mode';
import type { Player, PlayerState } from './player';
import type { PlaybackError, Rung } from './source';

export interface Snapshot {
  channel: string;
  state: PlayerState;
  now_ms: number;
  /** The latency mode that is played; null until it is known. */
  mode: Mode | null;
  latency_s: number | null;
  target_latency_s: number | null;
  buffer_s: number;
  stalls: number;
  stalled_ms: number;
  rendition: Rung | null;
  rungs: Rung[];
  selected_rung: number;
  current_time: number;
  playing_date_ms: number | null;
  playback_rate: number;
  /** What can be watched, in seconds of the media clock, and how far the picture is behind its live end. */
  dvr: { start_s: number; end_s: number; behind_live_s: number } | null;
  /** Whether the viewer follows live, or went back on purpose. */
  follows_live: boolean;
  /** The last 20 that the picture came to, oldest first. */
  timed_metadata: TimedMetadata[];
  paused: boolean;
  muted: boolean;
  dropped_frames: number;
  total_frames: number;
  startup_ms: number | null;
  transport: string;
  errors: PlaybackError[];
  error_count: number;
}

declare global {
  interface Window {
    readonly __sigma?: { snapshot(): Snapshot };
  }
}

export function exposeSnapshot(player: Player, channel: string, protocol: () => string): void {
  const snapshot = (): Snapshot => {
    const totals = player.stalls();
    const window = player.source?.window();
    const quality = player.video.getVideoPlaybackQuality?.();
    return {
      channel,
      state: player.state(),
      now_ms: Date.now(),
      mode: player.mode() ?? null,
      latency_s: player.latencyS() ?? null,
      target_latency_s: player.source?.targetLatencyS() ?? null,
      buffer_s: player.bufferS(),
      stalls: totals.count,
      stalled_ms: totals.total_ms,
      rendition: player.source?.playing() ?? null,
      rungs: player.source?.rungs() ?? [],
      selected_rung: player.source?.selected() ?? -1,
      current_time: player.video.currentTime,
      playing_date_ms: player.source?.playingDateMs() ?? null,
      playback_rate: player.video.playbackRate,
      dvr: window ? { ...window, behind_live_s: player.behindLiveS() ?? 0 } : null,
      follows_live: !player.wentBack(),
      timed_metadata: player.timed.told.map((item) => ({ ...item, attributes: { ...item.attributes } })),
      paused: player.video.paused,
      muted: player.video.muted,
      dropped_frames: quality?.droppedVideoFrames ?? 0,
      total_frames: quality?.totalVideoFrames ?? 0,
      startup_ms: player.startupMs ?? null,
      transport: protocol(),
      errors: player.errors.map((error) => ({ ...error })),
      error_count: player.errorCount,
    };
  };
  Object.defineProperty(window, '__sigma', { value: Object.freeze({ snapshot }), writable: false });
}
