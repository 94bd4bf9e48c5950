// The last minute of a measured value, for the graph. Pure and bounded.

export interface Point {
  at_ms: number;
  /** Undefined while nothing could be measured, which the graph draws as a gap. */
  value: number | undefined;
  stalled: boolean;
}

export class Series {
  private points: Point[] = [];

  /** `span_ms` is how far back points are kept, `points_max` how many at most. */
  constructor(
    readonly span_ms: number,
    private readonly points_max: number,
  ) {}

  push(point: Point): void {
    this.points.push(point);
    const oldest = point.at_ms - this.span_ms;
    while (this.points.length > this.points_max || (this.points[0]?.at_ms ?? oldest) < oldest) this.points.shift();
  }

  list(): readonly Point[] {
    return this.points;
  }

  /** The largest measured value, or `floor` if all are below it. */
  ceiling(floor: number): number {
    return this.points.reduce((most, point) => Math.max(most, point.value ?? 0), floor);
  }
}
