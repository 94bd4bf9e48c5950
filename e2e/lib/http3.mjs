// Single GETs over HTTP/2 (node) and over HTTP/3 (aioquic, a client that shares no code with ours).
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { connect } from 'node:http2';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const CACHE = process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache');
/** Where scripts/install-deps --test puts aioquic. */
const PYTHON = process.env.SIGMA_PYTHON ?? join(CACHE, 'sigma-live/python/bin/python');
const CLIENT = fileURLToPath(new URL('./h3_get.py', import.meta.url));

/** One GET, redirects followed; `{url, status, headers, text, sha256}`. The certificate is a development one. */
export async function h2Get(url) {
  const { origin, pathname, search } = new URL(url);
  const session = connect(origin, { rejectUnauthorized: false });
  try {
    return await new Promise((resolve, reject) => {
      session.once('error', reject);
      const stream = session.request({ ':path': pathname + search });
      let headers;
      const chunks = [];
      stream.once('response', (fields) => (headers = fields));
      stream.on('data', (chunk) => chunks.push(chunk));
      stream.once('error', reject);
      stream.once('end', () => {
        const status = headers[':status'];
        if (status === 302) return resolve(h2Get(new URL(headers.location, url).href));
        const body = Buffer.concat(chunks);
        return resolve({ url, status, headers, text: body.toString(), sha256: createHash('sha256').update(body).digest('hex') });
      });
    });
  } finally {
    session.close();
  }
}

/** The same over HTTP/3. With `early`, on a second connection that asks in 0-RTT. */
export async function h3Get(url, { early = false } = {}) {
  const args = [CLIENT, ...(early ? ['--early'] : []), url];
  const { stdout } = await promisify(execFile)(PYTHON, args, { timeout: 30_000 });
  return JSON.parse(stdout);
}
