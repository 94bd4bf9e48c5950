// Reads the clock that the test source burns into its picture, in the page, from the frame on screen.
//
// The row of blocks is at 0.925 of the height, cut into 60 columns: column 1 white and column 58 black give the
// threshold, columns 2 to 49 are the wall clock in ms (48 bits), 50 to 57 the CRC-8 of its six bytes.

/**
 * Installs `window.__clock` in a page: `read()` gives the clock of the newest frame or undefined; `watch(every_ms)` starts
 * collecting `{now_ms, burned_ms, pdt_ms, buffer_s, rate, stalls}` at presented frames, `take()` hands over what was collected.
 */
export async function installClockReader(page) {
  await page.evaluate(() => {
    const COLUMNS = 60;
    const SAMPLES_MAX = 100_000;
    const video = document.querySelector('video');
    const canvas = document.createElement('canvas');
    const pen = canvas.getContext('2d', { willReadFrequently: true });
    const crc8 = (bytes) => bytes.reduce((crc, byte) => {
      crc ^= byte;
      for (let bit = 0; bit < 8; bit += 1) crc = crc & 0x80 ? ((crc << 1) ^ 0x07) & 0xff : (crc << 1) & 0xff;
      return crc;
    }, 0);

    const read = () => {
      const { videoWidth, videoHeight } = video;
      if (videoWidth === 0) return undefined;
      const row = Math.floor((videoHeight * 111) / 120);
      if (canvas.width !== videoWidth) Object.assign(canvas, { width: videoWidth, height: 1 });
      pen.drawImage(video, 0, row, videoWidth, 1, 0, 0, videoWidth, 1);
      const { data } = pen.getImageData(0, 0, videoWidth, 1);
      const level = (column) => data[4 * Math.floor(((2 * column + 1) * videoWidth) / (2 * COLUMNS)) + 1];
      const threshold = (level(1) + level(COLUMNS - 2)) / 2;
      const bytes = [];
      for (let byte = 0; byte < 7; byte += 1) {
        let value = 0;
        for (let bit = 0; bit < 8; bit += 1) value = value * 2 + (level(2 + byte * 8 + bit) > threshold ? 1 : 0);
        bytes.push(value);
      }
      const check = bytes.pop();
      return crc8(bytes) === check ? bytes.reduce((all, byte) => all * 256 + byte, 0) : undefined;
    };

    let samples = [];
    const watch = (every_ms) => {
      let next = 0;
      const frame = (now, metadata) => {
        if (now >= next && samples.length < SAMPLES_MAX) {
          next = now + every_ms;
          const s = window.__sigma.snapshot();
          // The frame is on screen at expectedDisplayTime, not when this runs.
          const shown_ms = performance.timeOrigin + metadata.expectedDisplayTime;
          samples.push({
            now_ms: shown_ms,
            burned_ms: read(),
            // The player's clock has gone on since the frame was chosen: back to the frame's own time.
            pdt_ms: s.playing_date_ms === null ? undefined : s.playing_date_ms + (metadata.mediaTime - s.current_time) * 1000,
            latency_s: s.latency_s,
            buffer_s: s.buffer_s,
            rate: s.playback_rate,
            stalls: s.stalls,
            state: s.state,
          });
        }
        video.requestVideoFrameCallback(frame);
      };
      video.requestVideoFrameCallback(frame);
    };
    const take = () => {
      const taken = samples;
      samples = [];
      return taken;
    };
    window.__clock = { read, watch, take };
  });
}
