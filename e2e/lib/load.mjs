// `sigma-load` as a crowd of viewers, built beside the servers that run.
import { spawn } from 'node:child_process';
import { readFile, readlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';

const STDERR_KEPT = 4_000;

/** The program: `SIGMA_LOAD`, or the one beside the origin's. */
export async function loadTester(stack) {
  return process.env.SIGMA_LOAD ?? join(dirname(await readlink(`/proc/${stack.ready.pids.origin}/exe`)), 'sigma-load');
}

/** The multivariant playlist of a channel at every edge. */
export function playlists(stack, channel) {
  return stack.ready.edges.map((edge) => `${edge.https}/live/${channel}/index.m3u8`);
}

/**
 * Runs `sigma-load` with these arguments and the CA of the stack. Resolves when it ended, to `{code, report, sessions, said}`:
 * its JSON report and the lines of its ground-truth log, where it was told to write them.
 */
export async function load(stack, args, { json, truth } = {}) {
  const files = [...(json ? ['--json', json] : []), ...(truth ? ['--truth', truth] : [])];
  const child = spawn(await loadTester(stack), [...args, '--ca', stack.ready.ca, ...files], { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (bytes) => {
      said = (said + bytes.toString()).slice(-STDERR_KEPT);
    });
  }
  const orphaned = () => child.kill('SIGKILL');
  process.once('exit', orphaned);
  const code = await new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  process.off('exit', orphaned);
  const report = json ? JSON.parse(await readFile(json, 'utf8')) : undefined;
  const lines = truth ? (await readFile(truth, 'utf8')).trim().split('\n') : [];
  return { code, report, sessions: lines.map((line) => JSON.parse(line)), said };
}
