// Shows a broadcaster's notice over the picture for as long as it holds. Only ever as text.
import { isNotice, type TimedMetadata } from './metadata';
import { byId, setText } from './page';

const SHOWN_MS = 12_000;
const SHOWN_MIN_MS = 4_000;
const SHOWN_MAX_MS = 60_000;
const TEXT_MAX = 280;

export class Card {
  private readonly box = byId('card', HTMLElement);
  private readonly text = byId('card-text', HTMLElement);
  private timer: number | undefined;

  constructor() {
    byId('card-close', HTMLButtonElement).addEventListener('click', () => this.hide());
  }

  show(item: TimedMetadata): void {
    if (!isNotice(item)) return;
    setText(this.text, shortened(item.text));
    this.box.hidden = false;
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this.hide(), shownMs(item));
  }

  private hide(): void {
    window.clearTimeout(this.timer);
    this.box.hidden = true;
    setText(this.text, '');
  }
}

function shownMs(item: TimedMetadata): number {
  const duration = Number(item.attributes.DURATION ?? NaN) * 1000;
  return Number.isFinite(duration) && duration > 0 ? Math.min(SHOWN_MAX_MS, Math.max(SHOWN_MIN_MS, duration)) : SHOWN_MS;
}

function shortened(text: string): string {
  const letters = Array.from(text);
  return letters.length > TEXT_MAX ? `${letters.slice(0, TEXT_MAX - 1).join('')}…` : text;
}
