// Waiting for conditions, always with a bound. Nothing in this folder sleeps for a fixed time.

/** How often a condition that has no event is looked at. */
const LOOK_EVERY_MS = 50;

/**
 * Calls `check` until it returns something truthy and returns that. After `within_ms` it throws, saying `what` was
 * waited for and what the last look gave.
 */
export async function until(what, within_ms, check) {
  const deadline = performance.now() + within_ms;
  let last;
  for (;;) {
    try {
      const found = await check();
      if (found) return found;
      last = found;
    } catch (error) {
      last = error;
    }
    if (performance.now() >= deadline) break;
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
  const seen = last instanceof Error ? last.message : JSON.stringify(last);
  throw new Error(`waited ${within_ms} ms for: ${what}; last seen: ${seen}`);
}

/** Rejects if `promise` has not settled after `within_ms`. */
export async function bounded(what, within_ms, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${within_ms} ms for: ${what}`)), within_ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
