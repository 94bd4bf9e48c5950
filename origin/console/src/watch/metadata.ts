// Timed metadata: what a broadcaster attached to a moment of the picture, and when it is due. Pure.

export interface TimedMetadata {
  kind: 'daterange' | 'id3';
  id: string;
  /** CLASS of a date range, description of an ID3 TXXX frame; '' without one. */
  class: string;
  /** The moment of the picture, RFC 3339; '' where the stream carries no dates. */
  start_date: string;
  attributes: Record<string, string>;
  /** The words for people in it; '' for none. */
  text: string;
}

export interface Timed {
  /** Tells one from another; the same key again replaces what is known about it. */
  key: string;
  at_ms: number;
  /** Until when it holds; undefined for a moment. Who tunes in before then is told at once. */
  until_ms: number | undefined;
  item: TimedMetadata;
}

/** Carried by date ranges whose text is shown to viewers. */
export const NOTICE_CLASS = 'com.sigma.notice';
/** Carried by ID3 TXXX frames whose text is shown to viewers. */
export const NOTICE_FRAME = 'notice';

/** Attributes of a notice that hold its words, the first one found. */
const TEXT_ATTRIBUTES = ['X-TEXT', 'X-MESSAGE', 'X-COM-SIGMA-TEXT'];

export function isNotice(item: TimedMetadata): boolean {
  return item.text !== '' && item.class === (item.kind === 'daterange' ? NOTICE_CLASS : NOTICE_FRAME);
}

export interface DateRangeTag {
  id: string;
  start_ms: number;
  end_ms: number | undefined;
  attributes: Record<string, string>;
}

export function ofDateRange(tag: DateRangeTag): Timed {
  const text = TEXT_ATTRIBUTES.map((name) => tag.attributes[name]).find((value) => value !== undefined && value !== '');
  const item: TimedMetadata = {
    kind: 'daterange',
    id: tag.id,
    class: tag.attributes.CLASS ?? '',
    start_date: new Date(tag.start_ms).toISOString(),
    attributes: tag.attributes,
    text: text ?? '',
  };
  return { key: tag.id, at_ms: tag.start_ms, until_ms: tag.end_ms, item };
}

/** Nothing that the clock does in one step is longer than this, unless somebody jumped. */
const STEP_MAX_MS = 2_000;

interface Entry extends Timed {
  told: boolean;
}

/**
 * What is due as a clock goes on: a moment when the clock reaches it, a range also when the clock lands in it. After a
 * jump back, what lies ahead again is told again. At most `entries_max` are kept, the newest.
 */
export class Schedule {
  private entries = new Map<string, Entry>();
  private now_ms: number | undefined;
  /** Where the clock came to after the last jump: moments before it were skipped on purpose. */
  private from_ms = 0;

  constructor(private readonly entries_max: number) {}

  add(timed: Timed): void {
    const known = this.entries.get(timed.key);
    // Kept in its place: a map iterates in the order of insertion, and the oldest goes first.
    if (known) Object.assign(known, timed);
    else this.entries.set(timed.key, { ...timed, told: false });
    for (const key of this.entries.keys()) {
      if (this.entries.size <= this.entries_max) break;
      this.entries.delete(key);
    }
  }

  clear(): void {
    this.entries.clear();
    this.now_ms = undefined;
  }

  /** Forgets what is not in `keys` any more. */
  keep(keys: ReadonlySet<string>): void {
    for (const key of this.entries.keys()) if (!keys.has(key)) this.entries.delete(key);
  }

  /** The clock is at `now_ms`. Returns what is due, in the order of its moments. */
  advance(now_ms: number): TimedMetadata[] {
    const step = this.now_ms === undefined ? Infinity : now_ms - this.now_ms;
    if (step < 0 || step > STEP_MAX_MS) {
      this.from_ms = now_ms;
      for (const entry of this.entries.values()) if (entry.at_ms >= now_ms) entry.told = false;
    }
    this.now_ms = now_ms;
    const due: Entry[] = [];
    for (const entry of this.entries.values()) {
      if (entry.told || entry.at_ms > now_ms) continue;
      if (entry.at_ms >= this.from_ms || (entry.until_ms ?? 0) > now_ms) due.push(entry);
    }
    due.sort((a, b) => a.at_ms - b.at_ms);
    for (const entry of due) entry.told = true;
    return due.map((entry) => entry.item);
  }
}
