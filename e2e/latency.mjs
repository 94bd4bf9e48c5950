#!/usr/bin/env node
// Measures what a viewer of the test source gets through an edge: latency from the clock burned into the picture and
// from PROGRAM-DATE-TIME, stalls, start-up, buffer. Prints one JSON object. Not a test: it judges nothing.
//
//   node e2e/latency.mjs [--minutes 5] [--channel demo] [--edge 0] [--mode ultra|low|normal] [--ready-file FILE]
//
// Without --ready-file it starts a stack of its own and stops it afterwards.
import { cpus, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { openBrowser, Watcher, watchUrl } from './lib/browser.mjs';
import { measure } from './lib/measure.mjs';
import { attachStack, startStack } from './lib/stack.mjs';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '5' },
    channel: { type: 'string', default: 'demo' },
    edge: { type: 'string', default: '0' },
    mode: { type: 'string' },
    'ready-file': { type: 'string' },
    help: { type: 'boolean' },
  },
});

const minutes = Number(values.minutes);
const edge = Number(values.edge);
if (values.help || !(minutes > 0) || !Number.isInteger(edge)) {
  process.stderr.write('usage: latency.mjs [--minutes N] [--channel NAME] [--edge NUMBER] [--mode MODE] [--ready-file FILE]\n');
  process.exit(values.help ? 0 : 2);
}

const browser = await openBrowser();
const stack = values['ready-file'] ? await attachStack(values['ready-file']) : await startStack({ edges: edge + 1 });
try {
  process.stdout.write(`${JSON.stringify(await report(), undefined, 2)}\n`);
} finally {
  await browser.close();
  await stack.stop();
}

async function report() {
  const opened_ms = Date.now();
  const viewer = await Watcher.open(browser, watchUrl(stack.ready, values.channel, { edge, mode: values.mode }));
  const { playing_ms, figures } = await measure(viewer, { seconds: minutes * 60 });
  await viewer.close();
  return {
    channel: values.channel,
    minutes,
    ...figures,
    page_to_playing_ms: playing_ms - opened_ms,
    run_to_ready_ms: stack.ready_ms ? stack.ready_ms - stack.started_ms : null,
    run_to_playing_ms: stack.started_ms ? playing_ms - stack.started_ms : null,
    machine: { cores: cpus().length, load_1min: Number(loadavg()[0].toFixed(2)) },
  };
}
