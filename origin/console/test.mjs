// Bundles src/**/*.test.ts into a scratch folder and runs them with node's own test runner.
import { spawnSync } from 'node:child_process';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('.', import.meta.url));
const sources = (await readdir(join(root, 'src'), { recursive: true })).filter((name) => name.endsWith('.test.ts'));
const out = await mkdtemp(join(tmpdir(), 'sigma-console-test-'));
try {
  await build({
    absWorkingDir: root,
    entryPoints: sources.map((name) => join('src', name)),
    outdir: out,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    platform: 'node',
    format: 'esm',
    logLevel: 'warning',
  });
  const files = (await readdir(out, { recursive: true })).filter((name) => name.endsWith('.mjs')).map((name) => join(out, name));
  const run = spawnSync(process.execPath, ['--test', ...files], { stdio: 'inherit' });
  process.exitCode = run.status ?? 1;
} finally {
  await rm(out, { recursive: true, force: true });
}
