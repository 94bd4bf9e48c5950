// ffmpeg as the encoder of a broadcaster.
import { spawn } from 'node:child_process';

const STDERR_KEPT = 8_000;

/** Pushes `input` (an FLV file with a constant GOP) in real time and for ever to an RTMP address. */
export function pushFile(input, url) {
  return ffmpeg(['-re', '-stream_loop', '-1', '-i', input, '-c', 'copy', '-f', 'flv', url]);
}

/** Runs ffmpeg. `exited` resolves to `{code, signal}`; `log()` gives the end of what it said. */
export function ffmpeg(args) {
  const child = spawn('ffmpeg', ['-hide_banner', '-nostdin', '-nostats', '-loglevel', 'info', ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (bytes) => {
    said = (said + bytes.toString()).slice(-STDERR_KEPT);
  });
  const exited = new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve({ code, signal }));
  });
  const orphaned = () => child.kill('SIGKILL');
  process.once('exit', orphaned);
  void exited.finally(() => process.off('exit', orphaned)).catch(() => undefined);
  return {
    child,
    exited,
    log: () => said,
    running: () => child.exitCode === null && child.signalCode === null,
    /** Ends it the way a user does; the stream is closed properly. */
    async stop() {
      child.kill('SIGINT');
      return exited;
    },
    /** Ends it the way a crash does. */
    async kill() {
      child.kill('SIGKILL');
      return exited;
    },
  };
}
