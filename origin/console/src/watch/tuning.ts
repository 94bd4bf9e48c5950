// How hls.js is set up for live. Every figure that differs from its default says why; how it catches up depends on the mode
// and on the viewer, see `mode.ts`.
import type { HlsConfig, LoaderConfig, RetryConfig } from 'hls.js';

const retry = (maxNumRetry: number): RetryConfig => ({
  maxNumRetry,
  retryDelayMs: 250,
  maxRetryDelayMs: 1000,
  backoff: 'exponential',
});

function policy(firstByteMs: number, wholeMs: number, timeouts: number, errors: number): { default: LoaderConfig } {
  return {
    default: {
      maxTimeToFirstByteMs: firstByteMs,
      maxLoadTimeMs: wholeMs,
      timeoutRetry: { ...retry(timeouts), retryDelayMs: 0, maxRetryDelayMs: 0 },
      errorRetry: retry(errors),
    },
  };
}

export function tuning(): Partial<HlsConfig> {
  return {
    lowLatencyMode: true,
    // Each stall moves the target away from the edge by this much (hls.js: 1 s), so one bad moment costs little latency.
    liveSyncOnStallIncrease: 0.3,
    // A server that answers 200 with a playlist that never changes is as bad as one that answers nothing.
    liveMaxUnchangedPlaylistRefresh: 5,
    // A rung that failed once may be tried again; by default it never is.
    errorPenaltyExpireMs: 30_000,
    // Left to the browser, which evicts on append. A trim by hls.js that ends between the load and the append of a part makes it
    // forget that part, and at the end of the segment it waits until the playlist drops the segment's parts: a stall of 3 s.
    backBufferLength: Infinity,
    maxBufferLength: 30,
    // Somebody who went back has hours ahead; by default hls.js fetches as much of it as fits into 60 MB.
    maxMaxBufferLength: 60,
    liveDurationInfinity: true,
    capLevelToPlayerSize: true,
    // The first parts come from memory nearby: starting at the default guess of 0.5 Mbit/s shows a blurred picture first.
    abrEwmaDefaultEstimate: 3_000_000,
    // fMP4 is passed through, there is nothing heavy to move off the main thread.
    enableWorker: false,
    enableInterstitialPlayback: false,
    // Timed metadata is told by the page itself, see `metadata.ts`: hls.js would keep text tracks of it.
    enableDateRangeMetadataCues: false,
    enableID3MetadataCues: false,
    enableEmsgMetadataCues: false,
    // A blocking reload is held for up to three target durations (6 s); anything longer is a dead server. hls.js waits
    // 10 s twice by default, which with several rungs is half a minute before it tries anything else.
    manifestLoadPolicy: policy(5_000, 10_000, 1, 1),
    playlistLoadPolicy: policy(8_000, 12_000, 1, 2),
    fragLoadPolicy: policy(4_000, 20_000, 2, 4),
  };
}
