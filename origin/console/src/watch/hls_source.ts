// Playback through hls.js. Owns the engine's failures: a fatal error of hls.js never ends the page, it only decides
// what is tried next: load on, recover the media pipeline, or start from the multivariant playlist.
import Hls, { ErrorDetails, ErrorTypes, Events, type ErrorData, type Level, type LevelDetails } from 'hls.js';
import type { Window } from './follow';
import { landing } from './landing';
import type { DateRangeTag } from './metadata';
import { catchUp, modeOfPlaylist, type Mode } from './mode';
import { Retry } from './retry';
import { isRunning, statusForHttp, type Rung, type Source, type SourceListener, type SourceStatus } from './source';
import { tuning } from './tuning';

/** Resumed this often in vain, the multivariant playlist is asked whether the channel is still there. */
const RESUMES_BEFORE_CHECK = 3;
/** Media pipeline failures within this time count as one series. */
const MEDIA_FAILURE_SERIES_MS = 30_000;
/** The clock standing this long although newer media is listed: seek to live; after twice that, start again. */
const STUCK_MS = 5_000;
/** Nothing to show this long after beginning: begin again, there is nothing to lose. */
const NO_PICTURE_MS = 10_000;
/** The last resort, longer than a broadcaster is given to come back: start again whatever the reason. */
const GIVE_UP_MS = 45_000;
/** With more than this ahead, a chosen rung is fetched again from the next segment on instead of after the buffer. */
const LONG_BUFFER_S = 6;

const BEGIN_AGAIN = new Set<string>([
  ErrorDetails.MANIFEST_LOAD_ERROR,
  ErrorDetails.MANIFEST_LOAD_TIMEOUT,
  ErrorDetails.MANIFEST_PARSING_ERROR,
]);

const UNPLAYABLE = new Set<string>([
  ErrorDetails.MANIFEST_INCOMPATIBLE_CODECS_ERROR,
  ErrorDetails.BUFFER_INCOMPATIBLE_CODECS_ERROR,
]);

export class HlsSource implements Source {
  status: SourceStatus = 'connecting';
  private hls: Hls | undefined;
  private readonly begin = new Retry({ first_ms: 700, max_ms: 5_000 }, () => this.load());
  private readonly resume = new Retry({ first_ms: 300, max_ms: 3_000 }, () => this.loadOn());
  private readonly next = new Retry({ first_ms: 2_000, max_ms: 15_000 }, () => void this.lookForNext());
  private mediaFailures: number[] = [];
  private unstuckAtMs = -Infinity;
  private beganAtMs = 0;
  /** Something was buffered since it began. */
  private arrived = false;
  private everLive = false;
  private followsLive = true;
  /** Where a viewer who had gone back was when playback had to begin again. */
  private returnToMs: number | undefined;

  constructor(
    private readonly video: HTMLVideoElement,
    private playlist: string,
    private readonly listener: SourceListener,
  ) {
    video.addEventListener('ended', () => this.ended());
  }

  static supported(): boolean {
    return Hls.isSupported();
  }

  start(): void {
    const hls = new Hls(tuning());
    this.hls = hls;
    this.listener.began();
    this.beganAtMs = performance.now();
    this.arrived = false;
    hls.on(Events.MANIFEST_PARSED, () => this.listener.rungsChanged());
    hls.on(Events.LEVELS_UPDATED, () => this.listener.rungsChanged());
    hls.on(Events.LEVEL_SWITCHED, () => this.listener.rungsChanged());
    hls.on(Events.LEVEL_UPDATED, (_, { details }) => {
      this.steer();
      this.listener.dateRanges(dateRangesOf(details));
    });
    hls.on(Events.FRAG_PARSING_METADATA, (_, { samples }) => {
      for (const { pts, duration, data } of samples) {
        this.listener.id3({ at_s: pts, for_s: Number.isFinite(duration) ? duration : 0, bytes: data });
      }
    });
    hls.on(Events.FRAG_BUFFERED, () => this.mediaArrived());
    hls.on(Events.ERROR, (_, error) => this.failure(error));
    hls.attachMedia(this.video);
    hls.loadSource(this.playlist);
  }

  restart(): void {
    if (!this.followsLive) this.returnToMs ??= this.playingDateMs();
    for (const retry of [this.begin, this.resume, this.next]) retry.cancel();
    this.hls?.destroy();
    this.mediaFailures = [];
    this.setStatus(this.everLive ? 'reconnecting' : 'connecting', '');
    this.start();
  }

  change(playlist: string): void {
    this.playlist = playlist;
    this.followsLive = true;
    this.returnToMs = undefined;
    this.everLive = false;
    this.restart();
  }

  follow(live: boolean): void {
    this.followsLive = live;
    this.steer();
  }

  watch(standing_ms: number, started: boolean): void {
    const hls = this.hls;
    const now = performance.now();
    if (Math.min(standing_ms, now - this.beganAtMs) > (started && this.arrived ? GIVE_UP_MS : NO_PICTURE_MS)) {
      this.restart();
      return;
    }
    if (!hls || !started || this.status !== 'live' || standing_ms < STUCK_MS) return;
    const live = hls.liveSyncPosition;
    const fragments = hls.latestLevelDetails?.fragments ?? [];
    const list = fragments.map(({ start, end, gap }) => ({ start_s: start, end_s: end, gap: gap === true }));
    const target = live === null ? undefined : landing(list, this.video.currentTime, live, STUCK_MS / 1000);
    if (target === undefined) return;
    if (now - this.unstuckAtMs > 4 * STUCK_MS) {
      this.unstuckAtMs = now;
      // Somebody who went back is not thrown to live: a small step makes hls.js look anew for what is missing.
      this.video.currentTime = this.followsLive ? target : this.video.currentTime + 0.5;
    } else if (now - this.unstuckAtMs > STUCK_MS) {
      this.unstuckAtMs = -Infinity;
      this.restart();
    }
  }

  rungs(): Rung[] {
    return (this.hls?.levels ?? []).map(rungOf);
  }

  playing(): Rung | undefined {
    const index = this.hls?.currentLevel ?? -1;
    const level = this.hls?.levels[index];
    return level ? rungOf(level, index) : undefined;
  }

  selected(): number {
    return this.hls?.autoLevelEnabled === false ? this.hls.manualLevel : -1;
  }

  select(index: number): void {
    const hls = this.hls;
    if (!hls) return;
    const ahead = hls.mainForwardBufferInfo?.len ?? 0;
    if (ahead > LONG_BUFFER_S) hls.nextLevel = index;
    else hls.loadLevel = index;
  }

  playingDateMs(): number | undefined {
    return this.hls?.playingDate?.getTime();
  }

  dateMsAt(position_s: number): number | undefined {
    const fragments = this.hls?.latestLevelDetails?.fragments ?? [];
    const at = lastAtOrBefore(fragments, ({ start }) => start, position_s);
    const fragment = fragments[Math.max(0, at)];
    if (!fragment || fragment.programDateTime === null) return undefined;
    return fragment.programDateTime + (position_s - fragment.start) * 1000;
  }

  livePosition(): number | undefined {
    return this.window()?.end_s;
  }

  window(): Window | undefined {
    const details = this.hls?.latestLevelDetails;
    if (!details || details.fragments.length === 0) return undefined;
    const end = details.live ? this.hls?.liveSyncPosition : details.edge;
    if (end === null || end === undefined) return undefined;
    return { start_s: Math.min(details.fragmentStart, end), end_s: end };
  }

  targetLatencyS(): number | undefined {
    return this.hls?.targetLatency ?? undefined;
  }

  mode(): Mode | undefined {
    const details = this.hls?.latestLevelDetails;
    if (!details) return undefined;
    return modeOfPlaylist(details.partTarget > 0, details.holdBack || 3 * details.targetduration);
  }

  // Set after construction: given to the constructor, hls.js wants liveSyncDuration with it, and that would replace the
  // server's PART-HOLD-BACK as the target.
  private steer(): void {
    const hls = this.hls;
    if (!hls) return;
    const details = hls.latestLevelDetails;
    if (!details) return;
    const segment_s = details.targetduration;
    const pace = { target_s: hls.targetLatency ?? 0, segment_s, step_s: details.partTarget || segment_s };
    const { rate_max, latency_max_s } = catchUp(pace, this.followsLive);
    hls.config.maxLiveSyncPlaybackRate = rate_max;
    hls.config.liveMaxLatencyDuration = latency_max_s;
    // With 1 as the highest rate hls.js does not touch the rate at all, not even one that it raised before.
    if (rate_max === 1 && this.video.playbackRate !== 1) this.video.playbackRate = 1;
  }

  private goBack(): void {
    const date = this.returnToMs;
    const details = this.hls?.latestLevelDetails;
    if (date === undefined || !details) return;
    this.returnToMs = undefined;
    const at = lastAtOrBefore(details.fragments, ({ programDateTime }) => programDateTime ?? -Infinity, date);
    const fragment = details.fragments[at];
    if (fragment?.programDateTime) this.video.currentTime = fragment.start + (date - fragment.programDateTime) / 1000;
  }

  private mediaArrived(): void {
    this.everLive = true;
    this.arrived = true;
    this.goBack();
    this.begin.succeeded();
    this.resume.succeeded();
    this.setStatus('live', '');
  }

  private failure(error: ErrorData): void {
    this.listener.failed({
      at_ms: Date.now(),
      kind: error.type,
      detail: error.details,
      fatal: error.fatal,
      code: error.response?.code,
    });
    if (!error.fatal) return;
    if (UNPLAYABLE.has(error.details)) this.setStatus('failed', 'This browser cannot play the codecs of this channel.');
    else if (BEGIN_AGAIN.has(error.details)) this.beginAgain(error.response?.code ?? 0);
    else if (error.type === ErrorTypes.NETWORK_ERROR) this.resumeLater(error.response?.code ?? 0);
    else this.mediaFailure(error);
  }

  private beginAgain(code: number): void {
    const status = statusForHttp(code);
    const fresh = status === 'reconnecting' && !this.everLive && this.begin.attempts < 2;
    this.setStatus(fresh ? 'connecting' : status, '');
    if (status !== 'denied') this.begin.plan();
  }

  private resumeLater(code: number): void {
    this.setStatus('reconnecting', '');
    if (statusForHttp(code) !== 'reconnecting' || this.resume.attempts >= RESUMES_BEFORE_CHECK) {
      void this.checkChannel();
    } else {
      this.resume.plan();
    }
  }

  // Loading on keeps the picture and the clock; starting again loses both, so it is done only once the channel is gone.
  private async checkChannel(): Promise<void> {
    const answer = await fetch(this.playlist, { cache: 'no-store', signal: AbortSignal.timeout(5_000) }).catch(() => undefined);
    if (answer && !answer.ok && statusForHttp(answer.status) !== 'reconnecting') this.beginAgain(answer.status);
    else this.resume.plan();
  }

  private mediaFailure(error: ErrorData): void {
    const now = performance.now();
    this.mediaFailures = this.mediaFailures.filter((at) => now - at < MEDIA_FAILURE_SERIES_MS);
    this.mediaFailures.push(now);
    if (error.type === ErrorTypes.MEDIA_ERROR && this.mediaFailures.length <= 2) {
      this.hls?.recoverMediaError();
    } else if (this.mediaFailures.length <= 4) {
      this.setStatus('reconnecting', '');
      this.begin.plan();
    } else {
      this.setStatus('failed', `Playing failed again and again (${error.details}).`);
    }
  }

  private load(): void {
    this.resume.cancel();
    this.listener.began();
    this.hls?.loadSource(this.playlist);
  }

  private loadOn(): void {
    this.hls?.startLoad();
  }

  private ended(): void {
    if (this.hls?.latestLevelDetails?.live !== false) return;
    this.setStatus('ended', '');
    this.next.plan();
  }

  private async lookForNext(): Promise<void> {
    const running = await isRunning(this.playlist, AbortSignal.timeout(8_000)).catch(() => false);
    if (this.status !== 'ended') return;
    if (running) {
      this.next.succeeded();
      this.restart();
    } else {
      this.next.plan();
    }
  }

  private setStatus(status: SourceStatus, detail: string): void {
    if (this.status === status) return;
    this.status = status;
    this.listener.statusChanged(status, detail);
  }
}

function rungOf(level: Level, index: number): Rung {
  return {
    index,
    name: level.name ?? '',
    width: level.width || 0,
    height: level.height || 0,
    fps: level.frameRate || 0,
    kbps: Math.round(level.bitrate / 1000),
  };
}

/** The index of the last of `list`, which is in the order of `by`, that is not after `value`; -1 for none. */
function lastAtOrBefore<T>(list: readonly T[], by: (one: T) => number, value: number): number {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    const one = list[middle];
    if (one !== undefined && by(one) <= value) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

function dateRangesOf({ dateRanges }: LevelDetails): DateRangeTag[] {
  const tags: DateRangeTag[] = [];
  for (const range of Object.values(dateRanges)) {
    const start_ms = range?.startDate.getTime() ?? NaN;
    if (!range || Number.isNaN(start_ms)) continue;
    const attributes: Record<string, string> = {};
    for (const [name, value] of Object.entries(range.attr)) if (typeof value === 'string') attributes[name] = value;
    tags.push({ id: range.id, start_ms, end_ms: range.endDate?.getTime(), attributes });
  }
  return tags;
}
