// The player: one video element, one source, the stall meter. Everything shown or reported is read from here.
import { HlsSource } from './hls_source';
import { NativeSource } from './native_source';
import type { PlaybackError, Source, SourceStatus } from './source';
import { StallMeter, type StallTotals } from './stall';

/** What the viewer is told. `blocked`: the browser wants a tap before it plays. */
export type PlayerState = Exclude<SourceStatus, 'live'> | 'playing' | 'paused' | 'stalled' | 'blocked';

/** How often the media clock is read. Half of the shortest stall that counts. */
const SAMPLE_EVERY_MS = 50;
/** Standing shorter than this is counted but not shown, a spinner that flashes is worse than none. */
const SHOW_STALL_AFTER_MS = 350;
const ERRORS_MAX = 20;

export class Player {
  readonly source: Source | undefined;
  readonly errors: PlaybackError[] = [];
  errorCount = 0;
  detail = '';
  /** Time from the start of the navigation to the first moving picture, in milliseconds. */
  startupMs: number | undefined;
  onChange: () => void = () => undefined;

  private readonly meter = new StallMeter();
  private started = false;
  private blocked = false;
  /** What the viewer wants. The element's own `paused` also becomes true when the engine swaps its media. */
  private wanted = true;
  private viewerSeeks = false;
  private lastMediaS = 0;
  private movedAtMs = 0;

  constructor(
    readonly video: HTMLVideoElement,
    playlist: string,
  ) {
    const listener = {
      statusChanged: (status: SourceStatus, detail: string) => this.statusChanged(status, detail),
      rungsChanged: () => this.onChange(),
      failed: (error: PlaybackError) => this.noteError(error),
    };
    if (HlsSource.supported()) this.source = new HlsSource(video, playlist, listener);
    else if (NativeSource.supported(video)) this.source = new NativeSource(video, playlist, listener);
    for (const event of ['play', 'pause', 'playing', 'volumechange', 'ratechange', 'ended']) {
      video.addEventListener(event, () => this.onChange());
    }
    video.addEventListener('play', () => {
      this.wanted = true;
    });
    video.addEventListener('pause', () => {
      if (!video.ended && video.readyState > 0) this.wanted = false;
    });
    video.addEventListener('canplay', () => this.playIfWanted());
  }

  start(): void {
    if (!this.source) {
      this.detail = 'This browser has neither Media Source Extensions nor HLS of its own. A current browser plays it.';
      this.onChange();
      return;
    }
    this.video.muted = true;
    this.source.start();
    window.setInterval(() => this.sample(performance.now()), SAMPLE_EVERY_MS);
  }

  state(): PlayerState {
    const status = this.source?.status ?? 'failed';
    if (status === 'live' || status === 'reconnecting') {
      if (this.blocked) return 'blocked';
      if (this.started && !this.wanted) return 'paused';
      const standing = performance.now() - this.movedAtMs > SHOW_STALL_AFTER_MS;
      if (this.started && !standing) return 'playing';
      if (status === 'reconnecting') return 'reconnecting';
      return this.started ? 'stalled' : 'connecting';
    }
    return status;
  }

  stalls(): StallTotals {
    return this.meter.totals();
  }

  latencyS(): number | undefined {
    const date = this.source?.playingDateMs();
    return date === undefined || !this.started ? undefined : (Date.now() - date) / 1000;
  }

  bufferS(): number {
    const { buffered, currentTime } = this.video;
    for (let i = 0; i < buffered.length; i += 1) {
      if (buffered.start(i) <= currentTime + 0.1 && buffered.end(i) > currentTime) return buffered.end(i) - currentTime;
    }
    return 0;
  }

  play(): void {
    this.blocked = false;
    this.video.play().catch((error: unknown) => {
      this.blocked = error instanceof DOMException && error.name === 'NotAllowedError';
      this.onChange();
    });
  }

  togglePlay(): void {
    if (this.video.paused) this.play();
    else this.video.pause();
  }

  toggleMuted(): void {
    if (this.video.muted && this.video.volume === 0) this.video.volume = 0.5;
    this.video.muted = !this.video.muted;
  }

  setVolume(volume: number): void {
    this.video.volume = Math.min(1, Math.max(0, volume));
    this.video.muted = this.video.volume === 0;
  }

  seekBy(seconds: number): void {
    const { seekable, currentTime } = this.video;
    if (seekable.length === 0) return;
    const live = this.source?.livePosition() ?? seekable.end(seekable.length - 1);
    this.seek(Math.min(live, Math.max(seekable.start(0), currentTime + seconds)));
  }

  jumpToLive(): void {
    const live = this.source?.livePosition();
    if (live !== undefined && live > this.video.currentTime) this.seek(live);
    if (this.video.paused) this.play();
  }

  /** Whether playback is about where live playback should be. */
  atLive(): boolean {
    const live = this.source?.livePosition();
    return live !== undefined && this.started && !this.video.paused && live - this.video.currentTime < 1.5;
  }

  private seek(to: number): void {
    this.viewerSeeks = true;
    this.video.currentTime = to;
  }

  private playIfWanted(): void {
    if (this.wanted && !this.blocked && this.video.paused) this.play();
  }

  private sample(nowMs: number): void {
    const { currentTime, playbackRate, paused, ended, seeking } = this.video;
    const moved = currentTime !== this.lastMediaS;
    if (moved && !seeking) {
      if (!this.started && !paused && this.lastMediaS > 0) this.firstPicture(nowMs);
      this.viewerSeeks = false;
    }
    this.lastMediaS = currentTime;
    const status = this.source?.status;
    const broken = status !== 'live' && status !== 'reconnecting';
    const idle = !this.wanted || this.blocked || (broken && status !== 'connecting');
    if (moved || idle) this.movedAtMs = nowMs;
    this.meter.sample({
      now_ms: nowMs,
      media_s: currentTime,
      rate: playbackRate,
      should_play: this.started && this.wanted && !ended && !this.viewerSeeks && !broken,
    });
    if (!idle) this.source?.watch(nowMs - this.movedAtMs, this.started);
  }

  private firstPicture(nowMs: number): void {
    this.started = true;
    this.startupMs ??= nowMs;
    this.onChange();
  }

  private statusChanged(status: SourceStatus, detail: string): void {
    this.detail = detail;
    if (status !== 'live' && status !== 'reconnecting') {
      this.started = false;
      this.lastMediaS = 0;
    }
    this.onChange();
  }

  private noteError(error: PlaybackError): void {
    this.errorCount += 1;
    this.errors.push(error);
    if (this.errors.length > ERRORS_MAX) this.errors.shift();
  }
}
