// Builds dist/: watch.html and assets/ with content-hashed names. The output depends on the sources and the lock file
// only, so two builds of one commit are the same bytes.
import { createHash } from 'node:crypto';
import { mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { basename, extname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('.', import.meta.url));
const dist = join(root, 'dist');
const assets = join(dist, 'assets');
const publicPath = '/watch/assets/';

await rm(dist, { recursive: true, force: true });
await mkdir(assets, { recursive: true });

const result = await build({
  absWorkingDir: root,
  entryPoints: { watch: 'src/watch/main.ts', 'watch-style': 'src/watch/watch.css' },
  outdir: assets,
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2020',
  logLimit: 10,
  entryNames: '[name]-[hash]',
  legalComments: 'none',
  metafile: true,
  logLevel: 'warning',
});

const built = (suffix) => {
  const found = Object.entries(result.metafile.outputs).find(([, out]) => out.entryPoint?.endsWith(suffix));
  if (!found) throw new Error(`the bundler wrote no output for ${suffix}`);
  return publicPath + basename(found[0]);
};

async function hashed(path) {
  const bytes = await readFile(join(root, path));
  const hash = createHash('sha256').update(bytes).digest('hex').slice(0, 8).toUpperCase();
  const ext = extname(path) || '.txt';
  const name = `${basename(path, ext).toLowerCase()}-${hash}${ext}`;
  await writeFile(join(assets, name), bytes);
  return publicPath + name;
}

const places = {
  script: built('main.ts'),
  style: built('watch.css'),
  icon: await hashed('src/watch/icon.svg'),
  // hls.js is under Apache-2.0, which asks that its licence text travels with it.
  licence: await hashed('node_modules/hls.js/LICENSE'),
};

const template = await readFile(join(root, 'src/watch/watch.html'), 'utf8');
const html = template.replace(/\{\{(\w+)\}\}/g, (_, key) => {
  if (!(key in places)) throw new Error(`watch.html asks for an unknown place {{${key}}}`);
  return places[key];
});
await writeFile(join(dist, 'watch.html'), html);

// A server may send these as they are to whoever accepts gzip; nothing has to compress at run time.
for (const name of (await readdir(assets)).sort()) {
  const bytes = await readFile(join(assets, name));
  const packed = gzipSync(bytes, { level: 9 });
  if (packed.length < bytes.length) await writeFile(join(assets, `${name}.gz`), packed);
}

for (const name of (await readdir(assets)).sort()) {
  process.stdout.write(`assets/${name} ${(await readFile(join(assets, name))).length}\n`);
}
process.stdout.write(`watch.html ${Buffer.byteLength(html)}\n`);
