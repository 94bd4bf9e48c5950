// The seek bar over what can be watched, and the way back to its beginning. The slider's value is seconds relative to
// live, so that nothing moves under the hand while the window goes on.
import { hasSeekBar, within, type Window } from './follow';
import { behind, clockTime, spoken } from './format';
import { byId, setText } from './page';
import type { Player } from './player';

const STEP_S = 5;
const PAGE_S = 60;
/** Half of the slider's thumb: its middle never comes nearer to an end. As in the style sheet. */
const THUMB_HALF_PX = 8;

export class Timeline {
  private readonly stage = byId('stage', HTMLElement);
  private readonly row = byId('timeline', HTMLElement);
  private readonly slider = byId('seek', HTMLInputElement);
  private readonly tip = byId('seek-tip', HTMLOutputElement);
  private readonly late = byId('behind', HTMLElement);
  private readonly startOver = byId('start-over', HTMLButtonElement);
  private dragging = false;

  constructor(private readonly player: Player) {
    this.startOver.addEventListener('click', () => player.startOver());
    this.slider.addEventListener('input', () => this.dragged());
    this.slider.addEventListener('change', () => this.released());
    this.slider.addEventListener('keydown', (event) => this.key(event));
    this.slider.addEventListener('pointermove', (event) => this.hovered(event));
    this.slider.addEventListener('pointerleave', () => this.hideTip());
    this.slider.addEventListener('pointercancel', () => {
      this.dragging = false;
      this.hideTip();
    });
  }

  show(): void {
    const window = this.player.source?.window();
    const shown = hasSeekBar(window);
    this.row.hidden = !shown;
    this.stage.dataset.seekable = String(shown);
    if (!shown) return;
    const lateS = this.player.behindLiveS() ?? 0;
    this.slider.min = String(Math.round(window.start_s - window.end_s));
    const wentBack = this.player.wentBack();
    setText(this.late, wentBack ? behind(lateS) : '');
    if (this.dragging) return;
    const value = wentBack ? -lateS : 0;
    this.slider.value = String(Math.round(value));
    this.paint(window, value);
    this.describe(value);
  }

  private dragged(): void {
    this.dragging = true;
    const window = this.player.source?.window();
    if (!window) return;
    const value = Number(this.slider.value);
    this.paint(window, value);
    this.describe(value);
    this.showTip(value, this.fraction(value));
  }

  private released(): void {
    this.dragging = false;
    this.hideTip();
    this.go(Number(this.slider.value));
  }

  /** `value` is seconds relative to live. */
  private go(value: number): void {
    const window = this.player.source?.window();
    if (!window) return;
    if (value > -1) this.player.jumpToLive();
    else this.player.seekTo(window.end_s + value);
  }

  private key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const to = this.keyTarget(event.key);
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    this.go(Math.min(0, to));
    this.show();
  }

  private keyTarget(key: string): number | undefined {
    const now = -(this.player.behindLiveS() ?? 0);
    switch (key) {
      case 'ArrowLeft':
      case 'ArrowDown':
        return now - STEP_S;
      case 'ArrowRight':
      case 'ArrowUp':
        return now + STEP_S;
      case 'PageDown':
        return now - PAGE_S;
      case 'PageUp':
        return now + PAGE_S;
      case 'Home':
        return Number(this.slider.min);
      case 'End':
        return 0;
      default:
        return undefined;
    }
  }

  // A finger that moves is dragging; what the slider says then is what counts.
  private hovered(event: PointerEvent): void {
    if (this.dragging || event.pointerType !== 'mouse') return;
    const box = this.slider.getBoundingClientRect();
    const along = (event.clientX - box.left - THUMB_HALF_PX) / Math.max(1, box.width - 2 * THUMB_HALF_PX);
    const fraction = Math.min(1, Math.max(0, along));
    this.showTip(Number(this.slider.min) * (1 - fraction), fraction);
  }

  private fraction(value: number): number {
    const min = Number(this.slider.min);
    return min === 0 ? 1 : 1 - value / min;
  }

  private showTip(value: number, fraction: number): void {
    const date = this.dateMs(value);
    setText(this.tip, [date === undefined ? '' : clockTime(date), value > -1 ? 'live' : behind(-value)].filter((part) => part !== '').join(' · '));
    this.tip.hidden = false;
    // Kept inside the bar: half of the tip's own width is the nearest that its middle may come to an end.
    const half = this.tip.offsetWidth / 2;
    const width = this.slider.offsetWidth;
    const thumb = THUMB_HALF_PX + fraction * (width - 2 * THUMB_HALF_PX);
    const middle = Math.min(width - half, Math.max(half, thumb));
    this.tip.style.setProperty('--at', `${middle}px`);
  }

  private hideTip(): void {
    this.tip.hidden = true;
  }

  private paint(window: Window, value: number): void {
    const length = window.end_s - window.start_s;
    const played = length > 0 ? Math.min(1, Math.max(0, 1 + value / length)) : 1;
    this.slider.style.setProperty('--played', played.toFixed(4));
  }

  private describe(value: number): void {
    const date = this.dateMs(value);
    const words = [value > -1 ? 'Live' : `${spoken(-value)} behind live`, date === undefined ? '' : clockTime(date)];
    const text = words.filter((part) => part !== '').join(', ');
    if (this.slider.getAttribute('aria-valuetext') !== text) this.slider.setAttribute('aria-valuetext', text);
  }

  private dateMs(value: number): number | undefined {
    const window = this.player.source?.window();
    return window && this.player.source?.dateMsAt(within(window, window.end_s + value));
  }
}
