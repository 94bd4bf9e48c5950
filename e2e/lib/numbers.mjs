// Summaries of measured values.

/** The value below which the fraction `p` (0 to 1) of `values` lies, by the nearest rank; undefined for none. */
export function percentile(values, p) {
  if (values.length === 0) return undefined;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(p * sorted.length) - 1))];
}

/** `{count, min, p50, p95, p99, max}` rounded to `digits` decimals. */
export function summary(values, digits = 3) {
  const round = (value) => (value === undefined ? null : Number(value.toFixed(digits)));
  return {
    count: values.length,
    min: round(percentile(values, 0)),
    p50: round(percentile(values, 0.5)),
    p95: round(percentile(values, 0.95)),
    p99: round(percentile(values, 0.99)),
    max: round(percentile(values, 1)),
  };
}
