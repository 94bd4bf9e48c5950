// Players without low latency, run as their users run them: ffmpeg, ffprobe, GStreamer.
import { spawn } from 'node:child_process';

const OUTPUT_KEPT = 16_000;
/** Frames a second of the test source, and AAC frames a second at 48 kHz: GStreamer counts in buffers. */
const FPS = 30;
const AAC_FPS = 48_000 / 1_024;

/** Decodes `seconds` of `url`. Returns `{code, played_s, said}`; `said` is what ffmpeg complained about. */
export async function ffmpegPlays(url, seconds) {
  const ended = await run('ffmpeg', ['-hide_banner', '-nostdin', '-v', 'error', '-progress', 'pipe:1', '-i', url, '-t', String(seconds), '-f', 'null', '-'], seconds);
  const played_us = [...ended.out.matchAll(/^out_time_us=(\d+)$/gm)].at(-1)?.[1];
  return { code: ended.code, played_s: Number(played_us ?? NaN) / 1e6, said: ended.err };
}

/** Returns `{code, codecs, said}`: the codecs found, each once. */
export async function ffprobeReads(url) {
  const ended = await run('ffprobe', ['-v', 'error', '-show_entries', 'stream=codec_name', '-of', 'csv=p=0', url], 10);
  const codecs = [...new Set(ended.out.split(/[\s,]+/).filter((name) => name !== ''))].sort();
  return { code: ended.code, codecs, said: ended.err };
}

/** Plays `seconds` of `url` in time with the clock, pictures and sound. Returns `{code, played_s, said}`. */
export async function gstreamerPlays(url, seconds) {
  const sink = (rate) => `fakesink sync=true num-buffers=${Math.round(seconds * rate)}`;
  const ended = await run('gst-launch-1.0', ['playbin3', `uri=${url}`, `video-sink=${sink(FPS)}`, `audio-sink=${sink(AAC_FPS)}`], seconds);
  const took = /Execution ended after (\d+):(\d+):([\d.]+)/.exec(ended.out);
  const complaints = `${ended.out}\n${ended.err}`.split(/[\n\r]+/).filter((line) => /error|critical/i.test(line));
  const atEnd = /Got EOS from element/.test(ended.out) ? '' : 'it did not come to the end\n';
  return {
    code: ended.code,
    played_s: took ? Number(took[1]) * 3600 + Number(took[2]) * 60 + Number(took[3]) : NaN,
    said: atEnd + complaints.join('\n'),
  };
}

function run(program, args, seconds) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const kept = { out: '', err: '' };
    for (const [name, stream] of [['out', child.stdout], ['err', child.stderr]]) {
      stream.on('data', (bytes) => {
        kept[name] = (kept[name] + bytes.toString()).slice(-OUTPUT_KEPT);
      });
    }
    // Longer than any player needs; one that hangs is a failure like another.
    const timer = setTimeout(() => child.kill('SIGKILL'), (seconds + 30) * 1000);
    child.once('error', reject);
    child.once('close', (code, signal) => {
      clearTimeout(timer);
      resolve({ code: code ?? signal, ...kept });
    });
  });
}
