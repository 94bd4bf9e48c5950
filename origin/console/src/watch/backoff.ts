// Waiting times between attempts. Pure: the random number is an argument.

export interface BackoffLimits {
  first_ms: number;
  max_ms: number;
}

/**
 * The wait before attempt number `attempt` (0 is the first retry): doubling from `first_ms` to `max_ms`, then spread by
 * up to 25 % either way, so that viewers who lost the same server do not come back in step.
 * `random` is in [0, 1).
 */
export function backoffMs(attempt: number, limits: BackoffLimits, random: number): number {
  const doubled = limits.first_ms * 2 ** Math.min(Math.max(attempt, 0), 16);
  return Math.round(Math.min(doubled, limits.max_ms) * (0.75 + random * 0.5));
}
