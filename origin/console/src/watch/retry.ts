// One pending attempt at a time, with back-off. The attempt itself belongs to the caller.
import { backoffMs, type BackoffLimits } from './backoff';

export class Retry {
  private attempt = 0;
  private timer: number | undefined;

  constructor(
    private readonly limits: BackoffLimits,
    private readonly run: () => void,
  ) {}

  get attempts(): number {
    return this.attempt;
  }

  /** Plans the next attempt, unless one is planned already. */
  plan(): void {
    if (this.timer !== undefined) return;
    const wait = backoffMs(this.attempt, this.limits, Math.random());
    this.attempt += 1;
    this.timer = window.setTimeout(() => {
      this.timer = undefined;
      this.run();
    }, wait);
  }

  /** Things work again: the next failure starts with the shortest wait. */
  succeeded(): void {
    this.attempt = 0;
    this.cancel();
  }

  cancel(): void {
    window.clearTimeout(this.timer);
    this.timer = undefined;
  }
}
