// Puts the watch page together: address -> player -> what is shown.
import { addressOf, queryWithMode } from './address';
import { Card } from './card';
import { Controls } from './controls';
import { Figures } from './figures';
import { Notice } from './notice';
import { byId, setText } from './page';
import { Player } from './player';
import { exposeSnapshot } from './snapshot';
import { watchTransport } from './transport';

/** How often figures and state are shown anew. */
const SHOW_EVERY_MS = 250;

function main(): void {
  const address = addressOf(location.pathname, location.search);
  if (!address) {
    setText(byId('notice-title', HTMLElement), 'No such channel');
    setText(byId('notice-text', HTMLElement), 'The address of a channel is /watch/ and its name.');
    setText(byId('chip-text', HTMLElement), 'Error');
    byId('spinner', HTMLElement).hidden = true;
    return;
  }
  setText(byId('channel', HTMLElement), address.channel);
  document.title = `${address.channel} · Sigma Live`;

  const protocol = watchTransport();
  const player = new Player(byId('video', HTMLVideoElement), address);
  const card = new Card();
  player.timed.onTold = (item) => card.show(item);
  const controls = new Controls(player, (mode) => {
    history.replaceState(null, '', queryWithMode(location.search, mode) + location.hash);
  });
  const notice = new Notice(player, address.channel);
  const figures = new Figures(player, protocol);
  exposeSnapshot(player, address.channel, protocol);

  const showState = (): void => {
    const state = player.state();
    notice.show(state);
    controls.show(state);
  };
  player.onChange = showState;
  window.setInterval(() => {
    showState();
    figures.show(player.state(), performance.now());
  }, SHOW_EVERY_MS);
  player.start();
  showState();
}

main();
