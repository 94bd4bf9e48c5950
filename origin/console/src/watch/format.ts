// Text for figures. Pure.
import type { Rung } from './source';

export const NONE = '–';

export function seconds(value: number | undefined): string {
  return value === undefined ? NONE : `${value.toFixed(2)} s`;
}

/** A latency below zero or above a day says that the two clocks differ, not how late the picture is. */
export function latency(value: number | undefined): string {
  if (value === undefined) return NONE;
  if (value < -0.05 || value > 86_400) return 'clocks differ';
  return value < 100 ? `${Math.max(0, value).toFixed(2)} s` : duration(value);
}

/** `1:02:03`, or `2:03` below an hour. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const two = (value: number): string => String(value).padStart(2, '0');
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** How far behind live, for people who look. */
export function behind(seconds: number): string {
  return `\u2212${duration(seconds)}`;
}

/** A duration for people who listen. */
export function spoken(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const units: [number, string][] = [[Math.floor(whole / 3600), 'hour'], [Math.floor(whole / 60) % 60, 'minute'], [whole % 60, 'second']];
  const said = units.filter(([count]) => count > 0).slice(0, 2);
  return said.length === 0 ? '0 seconds' : said.map(([count, unit]) => `${count} ${unit}${count === 1 ? '' : 's'}`).join(' ');
}

/** The time of day where the viewer is. */
export function clockTime(ms: number): string {
  return new Date(ms).toLocaleTimeString(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit' });
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
