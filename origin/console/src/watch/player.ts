// The player: one video element, one source, the stall meter. Everything shown or reported is read from here.
import { playlistOf, type Address } from './address';
import { Follow, earliest, within } from './follow';
import { HlsSource } from './hls_source';
import { liveSlackS, type Mode } from './mode';
import { NativeSource } from './native_source';
import type { Id3Tag, PlaybackError, Source, SourceStatus } from './source';
import { StallMeter, type StallTotals } from './stall';
import { Timed } from './timed';

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
  readonly timed: Timed;
  errorCount = 0;
  detail = '';
  /** Time from the start of the navigation to the first moving picture, in milliseconds. */
  startupMs: number | undefined;
  onChange: () => void = () => undefined;

  private readonly meter = new StallMeter();
  private readonly following = new Follow();
  private started = false;
  private blocked = false;
  /** What the viewer wants. The element's own `paused` also becomes true when the engine swaps its media. */
  private wanted = true;
  private viewerSeeks = false;
  private lastMediaS = 0;
  private movedAtMs = 0;

  constructor(
    readonly video: HTMLVideoElement,
    private address: Address,
  ) {
    this.timed = new Timed(video);
    const listener = {
      statusChanged: (status: SourceStatus, detail: string) => this.statusChanged(status, detail),
      rungsChanged: () => this.onChange(),
      failed: (error: PlaybackError) => this.noteError(error),
      dateRanges: this.timed.dateRanges.bind(this.timed),
      began: () => this.timed.mediaClockReset(),
      id3: (tag: Id3Tag) => this.timed.id3(tag, this.source?.dateMsAt(tag.at_s)),
    };
    const playlist = playlistOf(address);
    if (HlsSource.supported()) this.source = new HlsSource(video, playlist, listener);
    else if (NativeSource.supported(video)) this.source = new NativeSource(video, playlist, listener);
    for (const event of ['play', 'pause', 'playing', 'volumechange', 'ratechange', 'ended']) {
      video.addEventListener(event, () => this.onChange());
    }
    video.addEventListener('play', () => {
      if (!this.wanted) this.goOn();
      this.wanted = true;
    });
    video.addEventListener('pause', () => {
      if (video.ended || video.readyState === 0) return;
      this.wanted = false;
      this.following.paused();
      this.source?.follow(false);
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

  /** Goes to a position of the media clock, or the nearest one that can be watched. */
  seekTo(position_s: number): void {
    const window = this.source?.window();
    if (!window) return;
    const to = within(window, position_s);
    this.following.wentTo(to, window.end_s, this.targetS());
    this.source?.follow(this.following.live);
    this.seek(to);
  }

  seekBy(seconds: number): void {
    this.seekTo(this.video.currentTime + seconds);
  }

  /** To the beginning of what can be watched. */
  startOver(): void {
    const window = this.source?.window();
    if (!window) return;
    this.seekTo(earliest(window));
    if (this.video.paused) this.play();
  }

  jumpToLive(): void {
    const live = this.source?.livePosition();
    this.following.toLive();
    this.source?.follow(true);
    if (live !== undefined && live > this.video.currentTime) this.seek(live);
    if (this.video.paused) {
      this.wanted = true;
      this.play();
    }
  }

  /** Plays the channel in another latency mode, at its live position. */
  setMode(mode: Mode): void {
    if (!this.source) return;
    this.address = { ...this.address, mode };
    this.following.toLive();
    this.wanted = true;
    this.blocked = false;
    this.viewerSeeks = true;
    this.source.change(playlistOf(this.address));
    this.onChange();
  }

  /** The mode that was chosen, or else the channel's own once it is known. */
  mode(): Mode | undefined {
    return this.address.mode ?? this.source?.mode();
  }

  /** Whether playback is about where live playback should be. */
  atLive(): boolean {
    const behind = this.behindLiveS();
    return behind !== undefined && this.started && !this.video.paused && this.following.live && behind < liveSlackS(this.targetS());
  }

  /** Whether the viewer went back on purpose. */
  wentBack(): boolean {
    return this.started && !this.following.live;
  }

  /** How far the picture is behind where live playback would be, in seconds; never negative. */
  behindLiveS(): number | undefined {
    const live = this.source?.livePosition();
    return live === undefined ? undefined : Math.max(0, live - this.video.currentTime);
  }

  private targetS(): number {
    return this.source?.targetLatencyS() ?? 0;
  }

  private seek(to: number): void {
    this.viewerSeeks = true;
    this.video.currentTime = to;
  }

  // After a pause the viewer goes on where the picture stood, as long as that can still be watched.
  private goOn(): void {
    const window = this.source?.window();
    if (!window || !this.started) return;
    const { currentTime } = this.video;
    if (currentTime < window.start_s) this.seek(earliest(window));
    this.following.wentTo(this.video.currentTime, window.end_s, this.targetS());
    this.source?.follow(this.following.live);
  }

  // What a viewer who went back stood on may leave the window, and playing on may bring him to live.
  private keepInWindow(): void {
    const window = this.source?.window();
    if (!window || this.following.live || this.video.paused || this.video.seeking) return;
    const to = this.following.playing(this.video.currentTime, window);
    if (to !== undefined) this.seek(to);
    if (this.following.live) this.source?.follow(true);
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
    if (!this.started || seeking) return;
    this.keepInWindow();
    this.timed.advance({ media_s: currentTime, date_ms: this.source?.playingDateMs() });
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
