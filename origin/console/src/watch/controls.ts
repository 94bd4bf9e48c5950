// The control bar, the keyboard, and hiding the bar while nobody needs it.
import { rungLabels } from './format';
import { MODE_NAMES, modeOf, MODES, type Mode } from './mode';
import { byId } from './page';
import type { Player, PlayerState } from './player';
import { Timeline } from './timeline';

const IDLE_AFTER_MS = 2_500;
const SEEK_S = 5;
const VOLUME_STEP = 0.1;
/** States in which there is nothing to control. */
const NOTHING_TO_CONTROL = new Set<PlayerState>(['offline', 'ended', 'denied', 'failed']);

/** iPhone only puts a video element itself on full screen. */
interface PhoneVideo extends HTMLVideoElement {
  webkitEnterFullscreen?: () => void;
}

export class Controls {
  private readonly stage = byId('stage', HTMLElement);
  private readonly bigPlay = byId('big-play', HTMLButtonElement);
  private readonly unmute = byId('unmute', HTMLButtonElement);
  private readonly playButton = byId('play', HTMLButtonElement);
  private readonly muteButton = byId('mute', HTMLButtonElement);
  private readonly volume = byId('volume', HTMLInputElement);
  private readonly live = byId('live', HTMLButtonElement);
  private readonly quality = byId('quality', HTMLSelectElement);
  private readonly mode = byId('mode', HTMLSelectElement);
  private readonly modes = byId('modes', HTMLOptGroupElement);
  private readonly timeline: Timeline;
  private readonly fullscreen = byId('fullscreen', HTMLButtonElement);
  /** Where there is no room for long names. */
  private readonly narrow = window.matchMedia('(max-width: 560px)');
  private idleTimer: number | undefined;
  private soundChosen = false;
  private rungKey = '';

  /** `onMode` is told what the viewer chose, so that the page's address says it. */
  constructor(
    private readonly player: Player,
    onMode: (mode: Mode) => void,
  ) {
    this.timeline = new Timeline(player);
    this.showModes();
    this.narrow.addEventListener('change', () => this.showModes());
    this.mode.addEventListener('change', () => {
      const mode = modeOf(this.mode.value);
      if (mode === undefined) return;
      onMode(mode);
      player.setMode(mode);
    });
    this.playButton.addEventListener('click', () => player.togglePlay());
    this.bigPlay.addEventListener('click', () => player.play());
    this.unmute.addEventListener('click', () => this.toggleMuted());
    this.muteButton.addEventListener('click', () => this.toggleMuted());
    this.live.addEventListener('click', () => player.jumpToLive());
    this.fullscreen.addEventListener('click', () => this.toggleFullscreen());
    this.quality.addEventListener('change', () => player.source?.select(Number(this.quality.value)));
    this.volume.addEventListener('input', () => {
      this.soundChosen = true;
      player.setVolume(Number(this.volume.value) / 100);
    });
    player.video.addEventListener('click', (event) => {
      // A mouse click on the picture pauses; a finger first wants to see the controls.
      if (!(event instanceof PointerEvent) || event.pointerType === 'mouse') player.togglePlay();
    });
    player.video.addEventListener('dblclick', () => this.toggleFullscreen());
    player.video.addEventListener('playing', () => this.wake());
    for (const event of ['pointermove', 'pointerdown', 'focusin'] as const) {
      this.stage.addEventListener(event, () => this.wake());
    }
    document.addEventListener('keydown', (event) => this.key(event));
  }

  show(state: PlayerState): void {
    const { video } = this.player;
    this.stage.dataset.paused = String(video.paused);
    this.stage.dataset.muted = String(video.muted);
    this.stage.dataset.usable = String(!NOTHING_TO_CONTROL.has(state));
    this.playButton.setAttribute('aria-label', video.paused ? 'Play' : 'Pause');
    this.muteButton.setAttribute('aria-label', video.muted ? 'Unmute' : 'Mute');
    this.bigPlay.hidden = state !== 'blocked';
    this.unmute.hidden = this.soundChosen || !video.muted || state !== 'playing';
    this.volume.value = String(video.muted ? 0 : Math.round(video.volume * 100));
    const atLive = this.player.atLive();
    this.live.dataset.atLive = String(atLive);
    this.live.setAttribute('aria-label', atLive ? 'Live now' : 'Jump to live');
    this.mode.disabled = this.player.source === undefined;
    if (document.activeElement !== this.mode) this.mode.value = this.player.mode() ?? '';
    this.timeline.show();
    this.showRungs();
  }

  private showModes(): void {
    const suffix = this.narrow.matches ? '' : ' latency';
    this.modes.replaceChildren(...MODES.map((mode) => new Option(`${MODE_NAMES[mode]}${suffix}`, mode)));
  }

  private showRungs(): void {
    const source = this.player.source;
    const rungs = source?.rungs() ?? [];
    const labels = rungLabels(rungs);
    const key = labels.join('|');
    if (key !== this.rungKey) {
      this.rungKey = key;
      const options = rungs.map((rung, at) => new Option(labels[at], String(rung.index)));
      this.quality.replaceChildren(new Option('Auto', '-1'), ...options.reverse());
      this.quality.disabled = rungs.length < 2;
    }
    const selected = source?.selected() ?? -1;
    const auto = this.quality.options[0];
    const playing = source?.playing();
    const name = playing && rungs.length > 1 && !this.narrow.matches ? labels[playing.index] : undefined;
    const text = selected === -1 && name !== undefined ? `Auto (${name})` : 'Auto';
    if (auto && auto.text !== text) auto.text = text;
    if (document.activeElement !== this.quality) this.quality.value = String(selected);
  }

  private toggleMuted(): void {
    this.soundChosen = true;
    this.player.toggleMuted();
  }

  private toggleFullscreen(): void {
    const video: PhoneVideo = this.player.video;
    if (document.fullscreenElement) void document.exitFullscreen();
    else if (this.stage.requestFullscreen) void this.stage.requestFullscreen().catch(() => undefined);
    else video.webkitEnterFullscreen?.();
  }

  private wake(): void {
    this.stage.dataset.idle = 'false';
    window.clearTimeout(this.idleTimer);
    this.idleTimer = window.setTimeout(() => {
      if (!this.player.video.paused) this.stage.dataset.idle = 'true';
    }, IDLE_AFTER_MS);
  }

  private key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const on = event.target instanceof Element ? event.target : undefined;
    // A focused control keeps the keys that work it.
    const typed = on?.closest('select, input');
    const pressed = on?.closest('button, summary, a');
    if (typed || (pressed && (event.key === ' ' || event.key === 'Enter'))) return;
    const action = this.actionFor(event.key);
    if (!action) return;
    event.preventDefault();
    action();
    this.wake();
  }

  private actionFor(key: string): (() => void) | undefined {
    const { player } = this;
    switch (key.toLowerCase()) {
      case ' ':
      case 'k':
        return () => player.togglePlay();
      case 'm':
        return () => this.toggleMuted();
      case 'f':
        return () => this.toggleFullscreen();
      case 'l':
        return () => player.jumpToLive();
      case 'home':
        return () => player.startOver();
      case 'arrowleft':
        return () => player.seekBy(-SEEK_S);
      case 'arrowright':
        return () => player.seekBy(SEEK_S);
      case 'arrowup':
        return () => this.changeVolume(VOLUME_STEP);
      case 'arrowdown':
        return () => this.changeVolume(-VOLUME_STEP);
      default:
        return undefined;
    }
  }

  private changeVolume(by: number): void {
    const { video } = this.player;
    this.soundChosen = true;
    this.player.setVolume((video.muted ? 0 : video.volume) + by);
  }
}
