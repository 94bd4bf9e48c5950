// Tells timed metadata as the picture comes to it: as an event on the video element, and to whoever shows it.
import { id3Frames } from './id3';
import { ofDateRange, Schedule, type DateRangeTag, type TimedMetadata } from './metadata';
import type { Id3Tag } from './source';

export const EVENT = 'sigma:timed-metadata';

const ENTRIES_MAX = 2_000;
const TOLD_MAX = 20;

/** The position of the picture on the two clocks that metadata is dated by. */
export interface Playhead {
  media_s: number;
  date_ms: number | undefined;
}

export class Timed {
  /** The last that were told, oldest first. */
  readonly told: TimedMetadata[] = [];
  onTold: (item: TimedMetadata) => void = () => undefined;

  private readonly byDate = new Schedule(ENTRIES_MAX);
  private readonly byMedia = new Schedule(ENTRIES_MAX);

  constructor(private readonly target: EventTarget) {}

  dateRanges(tags: DateRangeTag[]): void {
    this.byDate.keep(new Set(tags.map((tag) => tag.id)));
    for (const tag of tags) this.byDate.add(ofDateRange(tag));
  }

  /** `date_ms` is the wall time of the tag's position, where the stream carries dates. */
  id3({ at_s, for_s, bytes }: Id3Tag, date_ms: number | undefined): void {
    const at_ms = at_s * 1000;
    const start_date = date_ms === undefined ? '' : new Date(date_ms).toISOString();
    for (const { id: frame, description, text } of id3Frames(bytes)) {
      // The same tag comes again with another rendition and after a seek: position and content tell it apart.
      const id = `${frame}:${description}@${Math.round(at_ms)}`;
      this.byMedia.add({
        key: `${id}:${text}`,
        at_ms,
        until_ms: for_s > 0 ? at_ms + for_s * 1000 : undefined,
        item: { kind: 'id3', id, class: description, start_date, attributes: { frame, description }, text },
      });
    }
  }

  /** Another playlist or a fresh start: the media clock begins anew. */
  mediaClockReset(): void {
    this.byMedia.clear();
  }

  advance({ media_s, date_ms }: Playhead): void {
    const due = this.byMedia.advance(media_s * 1000);
    if (date_ms !== undefined) due.push(...this.byDate.advance(date_ms));
    for (const item of due) this.tell(item);
  }

  private tell(item: TimedMetadata): void {
    this.told.push(item);
    if (this.told.length > TOLD_MAX) this.told.shift();
    this.target.dispatchEvent(new CustomEvent(EVENT, { detail: { ...item, attributes: { ...item.attributes } } }));
    this.onTold(item);
  }
}
