// The live statistics under the picture.
import { bitrate, latency, NONE, picture, seconds, transport } from './format';
import { drawGraph } from './graph';
import { MODE_NAMES } from './mode';
import { byId, setText } from './page';
import type { Player, PlayerState } from './player';
import { Series } from './series';

const SPAN_MS = 60_000;
const POINTS_MAX = 600;

export class Figures {
  private readonly latency = byId('latency', HTMLElement);
  private readonly target = byId('target-text', HTMLElement);
  private readonly buffer = byId('buffer', HTMLElement);
  private readonly rendition = byId('rendition', HTMLElement);
  private readonly bitrate = byId('bitrate', HTMLElement);
  private readonly stalls = byId('stalls', HTMLElement);
  private readonly stalled = byId('stalled', HTMLElement);
  private readonly dropped = byId('dropped', HTMLElement);
  private readonly frames = byId('frames', HTMLElement);
  private readonly rate = byId('rate', HTMLElement);
  private readonly transport = byId('transport', HTMLElement);
  private readonly startup = byId('startup', HTMLElement);
  private readonly graph = byId('graph', HTMLCanvasElement);
  private readonly series = new Series(SPAN_MS, POINTS_MAX);
  private seenStalls = 0;

  constructor(
    private readonly player: Player,
    private readonly protocol: () => string,
  ) {}

  show(state: PlayerState, now_ms: number): void {
    const { player } = this;
    const running = state === 'playing' || state === 'stalled' || state === 'paused' || state === 'reconnecting';
    const measured = running ? player.latencyS() : undefined;
    const targetS = player.source?.targetLatencyS();
    const totals = player.stalls();
    const quality = player.video.getVideoPlaybackQuality?.();
    const rung = running ? player.source?.playing() : undefined;
    setText(this.latency, latency(measured));
    const mode = player.mode();
    setText(this.target, `${mode === undefined ? '' : `${MODE_NAMES[mode]}: `}hold-back ${seconds(targetS)}`);
    setText(this.buffer, running ? seconds(player.bufferS()) : NONE);
    setText(this.rendition, picture(rung));
    setText(this.bitrate, rung && rung.kbps > 0 ? bitrate(rung.kbps) : '');
    setText(this.stalls, String(totals.count));
    setText(this.stalled, totals.count > 0 ? `${seconds(totals.total_ms / 1000)} in all` : '');
    setText(this.dropped, String(quality?.droppedVideoFrames ?? 0));
    setText(this.frames, quality && quality.totalVideoFrames > 0 ? `of ${quality.totalVideoFrames}` : '');
    setText(this.rate, running ? `${player.video.playbackRate.toFixed(2)}×` : NONE);
    setText(this.transport, transport(this.protocol()));
    setText(this.startup, player.startupMs === undefined ? '' : `started in ${seconds(player.startupMs / 1000)}`);
    const stalledNow = totals.stalled || totals.count > this.seenStalls;
    this.seenStalls = totals.count;
    const shown = measured !== undefined && measured >= 0 && measured < 86_400 ? measured : undefined;
    this.series.push({ at_ms: now_ms, value: shown, stalled: stalledNow });
    drawGraph(this.graph, this.series, now_ms, player.wentBack() ? undefined : targetS);
  }
}
