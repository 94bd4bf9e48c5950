// Which HTTP version the media came over, read from the browser's resource timings.

const MEDIA_PATH = '/live/';

/** Starts listening; the returned function gives the protocol of the newest media response, '' before the first. */
export function watchTransport(): () => string {
  let newest = '';
  if (typeof PerformanceObserver === 'undefined') return () => newest;
  const observer = new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      if (!(entry instanceof PerformanceResourceTiming) || entry.nextHopProtocol === '') continue;
      if (new URL(entry.name).pathname.startsWith(MEDIA_PATH)) newest = entry.nextHopProtocol;
    }
    // The browser keeps every entry until it is told not to, and live playback makes a dozen a second.
    performance.clearResourceTimings();
  });
  observer.observe({ type: 'resource', buffered: true });
  return () => newest;
}
