// What the page tells the viewer about the player's state: chip, overlay, and the spoken status.
import { byId, setText } from './page';
import type { Player, PlayerState } from './player';

interface Words {
  chip: string;
  title: string;
  text: string;
  spinner: boolean;
  /** The overlay covers the picture lightly, so that the last frame stays visible. */
  light: boolean;
  action?: string;
}

const QUIET: Words = { chip: 'Live', title: '', text: '', spinner: false, light: true };

function wordsFor(state: PlayerState, channel: string, detail: string): Words {
  switch (state) {
    case 'connecting':
      return { chip: 'Connecting', title: 'Connecting', text: '', spinner: true, light: false };
    case 'offline':
      return {
        chip: 'Offline',
        title: 'Not live yet',
        text: `${channel} is not broadcasting at the moment. Leave this page open: it starts by itself.`,
        spinner: false,
        light: false,
      };
    case 'stalled':
      return { chip: 'Waiting', title: '', text: '', spinner: true, light: true };
    case 'reconnecting':
      return {
        chip: 'Reconnecting',
        title: 'Reconnecting',
        text: 'The stream was interrupted. It goes on as soon as the server answers.',
        spinner: true,
        light: true,
      };
    case 'ended':
      return {
        chip: 'Ended',
        title: 'The broadcast has ended',
        text: 'Leave this page open: the next one starts by itself.',
        spinner: false,
        light: false,
      };
    case 'denied':
      return {
        chip: 'No access',
        title: 'This channel needs a valid link',
        text: 'The link you used is missing its right to watch, or it has expired. Ask the broadcaster for a new one.',
        spinner: false,
        light: false,
        action: 'Try again',
      };
    case 'failed':
      return {
        chip: 'Error',
        title: 'This cannot be played',
        text: `${detail} Reload the page, or try another browser.`.trim(),
        spinner: false,
        light: false,
        action: 'Try again',
      };
    case 'paused':
      return { ...QUIET, chip: 'Paused' };
    case 'blocked':
      return { ...QUIET, chip: 'Ready' };
    case 'playing':
      return QUIET;
  }
}

export class Notice {
  private readonly chip = byId('chip', HTMLElement);
  private readonly chipText = byId('chip-text', HTMLElement);
  private readonly box = byId('notice', HTMLElement);
  private readonly spinner = byId('spinner', HTMLElement);
  private readonly title = byId('notice-title', HTMLElement);
  private readonly text = byId('notice-text', HTMLElement);
  private readonly action = byId('notice-action', HTMLButtonElement);
  private readonly announce = byId('announce', HTMLElement);

  constructor(
    private readonly player: Player,
    private readonly channel: string,
  ) {
    this.action.addEventListener('click', () => {
      if (this.player.source) this.player.source.restart();
      else location.reload();
    });
  }

  show(state: PlayerState): void {
    const words = wordsFor(state, this.channel, this.player.detail);
    const wentBack = state === 'playing' && this.player.wentBack();
    this.chip.dataset.state = wentBack ? 'behind' : state;
    setText(this.chipText, wentBack ? 'Behind live' : words.chip);
    this.box.hidden = words.title === '' && !words.spinner;
    this.box.dataset.kind = words.light ? 'light' : 'full';
    this.spinner.hidden = !words.spinner;
    setText(this.title, words.title);
    setText(this.text, words.text);
    this.action.hidden = words.action === undefined;
    setText(this.action, words.action ?? '');
    setText(this.announce, [words.title || words.chip, words.text].filter((part) => part !== '').join('. '));
  }
}
