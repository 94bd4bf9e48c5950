// Playback by the browser's own HLS, where Media Source Extensions are missing. The browser picks the rung and the
// latency; what cannot be read stays undefined.
import type { Window } from './follow';
import type { Mode } from './mode';
import { Retry } from './retry';
import { isRunning, statusForHttp, type Rung, type Source, type SourceListener, type SourceStatus } from './source';

/** Safari's, missing in the DOM typings. */
interface DatedVideo extends HTMLVideoElement {
  getStartDate?: () => Date;
}

export class NativeSource implements Source {
  status: SourceStatus = 'connecting';
  private readonly begin = new Retry({ first_ms: 700, max_ms: 5_000 }, () => void this.load());
  private readonly next = new Retry({ first_ms: 2_000, max_ms: 15_000 }, () => void this.lookForNext());

  constructor(
    private readonly video: DatedVideo,
    private playlist: string,
    private readonly listener: SourceListener,
  ) {
    video.addEventListener('playing', () => this.setStatus('live'));
    video.addEventListener('loadedmetadata', () => listener.rungsChanged());
    video.addEventListener('error', () => this.failure());
    video.addEventListener('ended', () => {
      this.setStatus('ended');
      this.next.plan();
    });
  }

  static supported(video: HTMLVideoElement): boolean {
    return video.canPlayType('application/vnd.apple.mpegurl') !== '';
  }

  start(): void {
    void this.load();
  }

  restart(): void {
    this.begin.cancel();
    this.next.cancel();
    void this.load();
  }

  change(playlist: string): void {
    this.playlist = playlist;
    this.restart();
  }

  follow(): void {
    // The browser itself keeps a viewer who went back where he is.
  }

  watch(): void {
    // The browser does its own stall recovery.
  }

  rungs(): Rung[] {
    return [];
  }

  playing(): Rung | undefined {
    const { videoWidth, videoHeight } = this.video;
    if (videoWidth === 0) return undefined;
    return { index: 0, name: '', width: videoWidth, height: videoHeight, fps: 0, kbps: 0 };
  }

  selected(): number {
    return -1;
  }

  select(): void {
    // No choice: the browser decides.
  }

  playingDateMs(): number | undefined {
    const start = this.video.getStartDate?.().getTime();
    return start === undefined || Number.isNaN(start) ? undefined : start + this.video.currentTime * 1000;
  }

  dateMsAt(position_s: number): number | undefined {
    const date = this.playingDateMs();
    return date === undefined ? undefined : date + (position_s - this.video.currentTime) * 1000;
  }

  livePosition(): number | undefined {
    return this.window()?.end_s;
  }

  window(): Window | undefined {
    const { seekable } = this.video;
    if (seekable.length === 0) return undefined;
    return { start_s: seekable.start(0), end_s: seekable.end(seekable.length - 1) };
  }

  targetLatencyS(): number | undefined {
    return undefined;
  }

  mode(): Mode | undefined {
    return undefined;
  }

  // The video element does not say why it failed, so the playlist is asked for first.
  private async load(): Promise<void> {
    const answer = await fetch(this.playlist, { cache: 'no-store', signal: AbortSignal.timeout(8_000) }).catch(() => undefined);
    if (answer?.ok) {
      this.listener.began();
      this.video.src = this.playlist;
      this.video.load();
      void this.video.play().catch(() => undefined);
      return;
    }
    const status = statusForHttp(answer?.status ?? 0);
    this.setStatus(status);
    if (status !== 'denied') this.begin.plan();
  }

  private failure(): void {
    const code = this.video.error?.code ?? 0;
    this.listener.failed({ at_ms: Date.now(), kind: 'native', detail: `media error ${code}`, fatal: true, code: undefined });
    this.setStatus('reconnecting');
    this.begin.plan();
  }

  private async lookForNext(): Promise<void> {
    const running = await isRunning(this.playlist, AbortSignal.timeout(8_000)).catch(() => false);
    if (running) this.restart();
    else this.next.plan();
  }

  private setStatus(status: SourceStatus): void {
    if (status === 'live') this.begin.succeeded();
    if (this.status === status) return;
    this.status = status;
    this.listener.statusChanged(status, '');
  }
}
