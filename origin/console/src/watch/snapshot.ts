// The read-only view of the player that tests and measurements take through `window.__sigma.snapshot()`.
import type { Player, PlayerState } from './player';
import type { PlaybackError, Rung } from './source';

export interface Snapshot {
  channel: string;
  state: PlayerState;
  now_ms: number;
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
    const quality = player.video.getVideoPlaybackQuality?.();
    return {
      channel,
      state: player.state(),
      now_ms: Date.now(),
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
