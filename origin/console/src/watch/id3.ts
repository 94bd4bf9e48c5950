// Reads the frames of an ID3v2.3 or 2.4 tag, as far as live metadata uses them: text, user text, private. Pure; whatever
// is cut short or not understood is left out.

export interface Id3Frame {
  id: string;
  /** TXXX: its description; PRIV: its owner; else ''. */
  description: string;
  /** The text; '' for a frame that has none. */
  text: string;
}

const HEADER_BYTES = 10;
const FRAMES_MAX = 64;

export function id3Frames(bytes: Uint8Array): Id3Frame[] {
  const found: Id3Frame[] = [];
  if (bytes.length < HEADER_BYTES || latin(bytes.subarray(0, 3)) !== 'ID3') return found;
  const version = bytes[3] ?? 0;
  if (version !== 3 && version !== 4) return found;
  const end = Math.min(bytes.length, HEADER_BYTES + sevenBit(bytes, 6));
  let at = HEADER_BYTES + extendedHeader(bytes, version);
  while (at + HEADER_BYTES <= end && found.length < FRAMES_MAX) {
    const id = latin(bytes.subarray(at, at + 4));
    if (!/^[A-Z0-9]{4}$/.test(id)) break;
    const size = version === 4 ? sevenBit(bytes, at + 4) : eightBit(bytes, at + 4);
    const body = at + HEADER_BYTES;
    if (size === 0 || body + size > end) break;
    const frame = frameOf(id, bytes.subarray(body, body + size));
    if (frame) found.push(frame);
    at = body + size;
  }
  return found;
}

function frameOf(id: string, body: Uint8Array): Id3Frame | undefined {
  if (id === 'PRIV') {
    const owner = latin(body.subarray(0, zero(body)));
    return { id, description: owner, text: '' };
  }
  if (!id.startsWith('T')) return undefined;
  const strings = text(body[0] ?? 0, body.subarray(1)).split('\0');
  if (id === 'TXXX') return { id, description: strings[0] ?? '', text: strings[1] ?? '' };
  return { id, description: '', text: strings[0] ?? '' };
}

function text(encoding: number, bytes: Uint8Array): string {
  if (encoding === 0) return latin(bytes);
  if (encoding === 3) return new TextDecoder('utf-8').decode(bytes);
  if (encoding !== 1 && encoding !== 2) return '';
  // Each string has a byte order mark of its own under encoding 1; without one it is big-endian.
  const little = encoding === 1 && bytes[0] === 0xff && bytes[1] === 0xfe;
  const whole = bytes.subarray(0, bytes.length & ~1);
  return new TextDecoder(little ? 'utf-16le' : 'utf-16be').decode(whole).replace(/\ufeff/g, '');
}

function extendedHeader(bytes: Uint8Array, version: number): number {
  if (((bytes[5] ?? 0) & 0x40) === 0) return 0;
  return version === 4 ? sevenBit(bytes, HEADER_BYTES) : eightBit(bytes, HEADER_BYTES) + 4;
}

function zero(bytes: Uint8Array): number {
  const at = bytes.indexOf(0);
  return at === -1 ? bytes.length : at;
}

function latin(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join('');
}

function sevenBit(bytes: Uint8Array, at: number): number {
  return [0, 1, 2, 3].reduce((all, step) => all * 128 + ((bytes[at + step] ?? 0) & 0x7f), 0);
}

function eightBit(bytes: Uint8Array, at: number): number {
  return [0, 1, 2, 3].reduce((all, step) => all * 256 + (bytes[at + step] ?? 0), 0);
}
