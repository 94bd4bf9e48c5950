// Text for figures. Pure.
import type { Rung } from './source';

export const NONE = '–';

export function seconds(value: number | undefined): string {
  return value === undefined ? NONE : `${value.toFixed(2)} s`;
}

/** A latency below zero or above a day says that the two clocks differ, not how late the picture is. */
export function latency(value: number | undefined): string {
  if (value === undefined) return NONE;
  return value < -0.05 || value > 86_400 ? 'clocks differ' : `${Math.max(0, value).toFixed(2)} s`;
}

export function bitrate(kbps: number): string {
  return kbps >= 10_000 ? `${(kbps / 1000).toFixed(1)} Mbit/s` : `${Math.round(kbps)} kbit/s`;
}

/** `720p60`, `720p`, or the bit rate where there is no picture. */
export function rungName(rung: Rung): string {
  if (rung.height === 0) return rung.name || (rung.kbps > 0 ? bitrate(rung.kbps) : 'Audio');
  const fps = Math.round(rung.fps);
  return `${Math.min(rung.height, rung.width || rung.height)}p${fps > 30 ? fps : ''}`;
}

/** One label per rung, in the order given; rungs of the same size are told apart by their bit rate. */
export function rungLabels(rungs: readonly Rung[]): string[] {
  const names = rungs.map(rungName);
  return rungs.map((rung, at) => {
    const name = names[at] ?? '';
    const shared = names.filter((other) => other === name).length > 1;
    return shared ? `${name} · ${bitrate(rung.kbps)}` : name;
  });
}

export function picture(rung: Rung | undefined): string {
  if (!rung) return NONE;
  if (rung.height === 0) return 'audio only';
  const fps = rung.fps > 0 ? ` @ ${Number(rung.fps.toFixed(2))}` : '';
  return `${rung.width}×${rung.height}${fps}`;
}

/** The name people know a protocol by, from the resource timing's `nextHopProtocol`. */
export function transport(protocol: string): string {
  const names: Record<string, string> = { h3: 'HTTP/3', h2: 'HTTP/2', 'http/1.1': 'HTTP/1.1' };
  return protocol === '' ? NONE : (names[protocol] ?? protocol);
}
