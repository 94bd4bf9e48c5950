//! Drawing the test picture, straight into yuv420p.
//!
//! Top to bottom in sixtieths of the height: colour bars (0 to 14), a grey ramp with a ball bouncing over it (14 to 26),
//! the wall clock (26 to 40), label and picture counter (40 to 46), grain (47 to 50), the clock code (53 to 58,
//! [`crate::clock_code`]). The background is drawn once; each picture redraws only the text cells that changed, the
//! ball's old and new place, the grain and the blocks of the code. The grain is there because everything else is so
//! easy to encode that a larger picture would take fewer bits than a smaller one scaled from it.
//! Deliberately absent: anti-aliasing, randomness.

use std::time::Duration;

use super::font::{ADVANCE, GLYPH_HEIGHT, GLYPH_WIDTH, glyph};
use crate::av::AvError;
use crate::av::frame::Frame;
use crate::clock_code;

const PLANES: [usize; 3] = [0, 1, 2];
const BLACK: u8 = 16;
const WHITE: u8 = 235;
const NEUTRAL: u8 = 128;
/// 75 % bars in BT.709, limited range: grey, yellow, cyan, green, magenta, red, blue, black.
const BARS: [[u8; 3]; 8] = [
    [180, 128, 128],
    [168, 44, 136],
    [145, 147, 44],
    [133, 63, 52],
    [63, 193, 204],
    [51, 109, 212],
    [28, 212, 120],
    [16, 128, 128],
];
const BALL_COLOUR: [u8; 3] = [81, 90, 240];
/// The grain's rows, in sixtieths of the height, and the side of the tile it repeats, a power of two.
const GRAIN_ROWS: (usize, usize) = (47, 50);
const GRAIN_SIDE: usize = 128;
/// Longest label drawn, in characters.
const LABEL_CHARS_MAX: usize = 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Area {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
}

/// The picture being drawn over and over.
#[derive(Debug)]
pub(crate) struct Picture {
    frame: Frame,
    width: usize,
    height: usize,
    clock: Line,
    counter: Line,
    ball: Option<Area>,
    grain: Vec<u8>,
    code: [Option<bool>; clock_code::COLUMNS as usize],
}

impl Picture {
    /// Draws the background. The sides are even and at least 160 and 90.
    pub(crate) fn new(width: u32, height: u32, label: &str) -> Result<Self, AvError> {
        let frame = Frame::picture(width, height)?;
        let (width, height) = (side(width), side(height));
        let small = (width / (42 * ADVANCE)).max(1).min(height / 60).max(1);
        let clock_scale = (width * 9 / (10 * 12 * ADVANCE)).min(height * 12 / 60 / GLYPH_HEIGHT).max(1);
        let clock_x = width.saturating_sub(12 * ADVANCE * clock_scale) / 2;
        let text_y = sixtieths(height, 41);
        let counter_x = width.saturating_sub((10 * ADVANCE + 2) * small);
        let mut picture = Self {
            frame,
            width,
            height,
            clock: Line::new(clock_x, sixtieths(height, 27), clock_scale),
            counter: Line::new(counter_x, text_y, small),
            ball: None,
            grain: grain_tile(),
            code: [None; clock_code::COLUMNS as usize],
        };
        picture.background()?;
        let label: String = label.chars().take(LABEL_CHARS_MAX).collect();
        let (luma, stride) = picture.frame.plane_mut(0)?;
        Line::new(2 * small, text_y, small).write(luma, stride, &label);
        Ok(picture)
    }

    /// Draws the picture of the moment `wall` after the Unix epoch. The frame may be shared, not kept, by the caller.
    pub(crate) fn draw(&mut self, wall: Duration, counter: u64) -> Result<&mut Frame, AvError> {
        self.move_ball(counter)?;
        self.draw_grain(counter)?;
        let unix_ms = u64::try_from(wall.as_millis()).unwrap_or(0);
        let (luma, stride) = self.frame.plane_mut(0)?;
        self.clock.write(luma, stride, &clock_text(unix_ms));
        self.counter.write(luma, stride, &format!("#{counter:09}"));
        let (top, bottom) = clock_code::ROW_SIXTIETHS;
        let rows = sixtieths(self.height, side(top))..sixtieths(self.height, side(bottom));
        for (column, (&white, drawn)) in clock_code::columns(unix_ms).iter().zip(&mut self.code).enumerate() {
            if drawn.replace(white) == Some(white) {
                continue;
            }
            let x = sixtieths(self.width, column)..sixtieths(self.width, column + 1);
            for row in rows.clone() {
                luma[row * stride..][x.clone()].fill(if white { WHITE } else { BLACK });
            }
        }
        Ok(&mut self.frame)
    }

    fn background(&mut self) -> Result<(), AvError> {
        let (width, height) = (self.width, self.height);
        let bars_until = sixtieths(height, 14) & !1;
        let ramp_until = sixtieths(height, 26) & !1;
        for plane in PLANES {
            let step = if plane == 0 { 1 } else { 2 };
            let (bytes, stride) = self.frame.plane_mut(plane)?;
            for y in 0..height / step {
                let row = &mut bytes[y * stride..][..width / step];
                for (x, byte) in row.iter_mut().enumerate() {
                    *byte = match (y * step, plane) {
                        (y, _) if y < bars_until => BARS[x * step * BARS.len() / width][plane],
                        (y, _) if y < ramp_until => ramp(x * step, width, plane),
                        (_, 0) => BLACK,
                        _ => NEUTRAL,
                    };
                }
            }
        }
        Ok(())
    }

    /// Two layers of one tile that drift apart: no motion vector fits both.
    fn draw_grain(&mut self, counter: u64) -> Result<(), AvError> {
        let drift = usize::try_from(counter % GRAIN_SIDE as u64).unwrap_or(0);
        let rows = sixtieths(self.height, GRAIN_ROWS.0)..sixtieths(self.height, GRAIN_ROWS.1);
        let (luma, stride) = self.frame.plane_mut(0)?;
        for y in rows {
            let near = &self.grain[(y + drift) % GRAIN_SIDE * GRAIN_SIDE..][..GRAIN_SIDE];
            let far = &self.grain[(y + GRAIN_SIDE - drift) % GRAIN_SIDE * GRAIN_SIDE..][..GRAIN_SIDE];
            for (x, byte) in luma[y * stride..][..self.width].iter_mut().enumerate() {
                *byte = BLACK
                    + near[(x + 2 * drift) % GRAIN_SIDE]
                    + far[(x + 3 * (GRAIN_SIDE - drift)) % GRAIN_SIDE];
            }
        }
        Ok(())
    }

    fn move_ball(&mut self, counter: u64) -> Result<(), AvError> {
        let top = sixtieths(self.height, 14) & !1;
        let room = (sixtieths(self.height, 26) & !1) - top;
        let size = (room * 2 / 5) & !1;
        // Pictures from edge to edge: primes, so that the path takes minutes to repeat.
        let place = |period: u64, room: usize| {
            let phase = usize::try_from(counter % (2 * period)).unwrap_or(0);
            let period = usize::try_from(period).unwrap_or(1);
            let up = if phase < period { phase } else { 2 * period - phase };
            (room * up / period) & !1
        };
        let new = Area {
            x: place(97, self.width - size),
            y: top + place(31, room - size),
            width: size,
            height: size,
        };
        let old = self.ball.replace(new);
        let picture_width = self.width;
        for plane in PLANES {
            let step = if plane == 0 { 1 } else { 2 };
            let (bytes, stride) = self.frame.plane_mut(plane)?;
            if let Some(old) = old {
                for y in old.y / step..(old.y + old.height) / step {
                    for x in old.x / step..(old.x + old.width) / step {
                        bytes[y * stride + x] = ramp(x * step, picture_width, plane);
                    }
                }
            }
            let radius = new.width / step / 2;
            for y in 0..2 * radius {
                // Twice the distance from the middle, so that it stays an integer.
                let down = (2 * y + 1).abs_diff(2 * radius);
                let half = (4 * radius * radius).saturating_sub(down * down).isqrt() / 2;
                let from = (new.y / step + y) * stride + new.x / step + radius;
                bytes[from - half..from + half].fill(BALL_COLOUR[plane]);
            }
        }
        Ok(())
    }
}

fn ramp(x: usize, width: usize, plane: usize) -> u8 {
    if plane == 0 {
        BLACK + u8::try_from(x * usize::from(WHITE - BLACK) / width).unwrap_or(0)
    } else {
        NEUTRAL
    }
}

/// A tile of grey values from 0 to 63: the same on every machine.
fn grain_tile() -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u8::try_from(state >> 58).unwrap_or(0)
    };
    std::iter::repeat_with(next).take(GRAIN_SIDE * GRAIN_SIDE).collect()
}

fn side(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn sixtieths(whole: usize, part: usize) -> usize {
    whole * part / 60
}

/// `HH:MM:SS.mmm` in UTC.
fn clock_text(unix_ms: u64) -> String {
    let (seconds, ms) = (unix_ms / 1000, unix_ms % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

/// A line of text at one place that only redraws what changed.
#[derive(Debug)]
struct Line {
    x: usize,
    y: usize,
    scale: usize,
    drawn: Vec<char>,
}

impl Line {
    fn new(x: usize, y: usize, scale: usize) -> Self {
        Self { x, y, scale, drawn: Vec::new() }
    }

    fn write(&mut self, luma: &mut [u8], stride: usize, text: &str) {
        for (cell, character) in text.chars().enumerate() {
            match self.drawn.get_mut(cell) {
                Some(drawn) if *drawn == character => continue,
                Some(drawn) => *drawn = character,
                None => self.drawn.push(character),
            }
            self.write_cell(luma, stride, (cell, character));
        }
    }

    fn write_cell(&self, luma: &mut [u8], stride: usize, (cell, character): (usize, char)) {
        let left = self.x + cell * ADVANCE * self.scale;
        if left + GLYPH_WIDTH * self.scale > stride {
            return;
        }
        for (row, bits) in glyph(character).into_iter().enumerate() {
            for y in 0..self.scale {
                let start = (self.y + row * self.scale + y) * stride + left;
                let Some(line) = luma.get_mut(start..start + GLYPH_WIDTH * self.scale) else {
                    return;
                };
                for (column, pixels) in line.chunks_exact_mut(self.scale).enumerate() {
                    let lit = bits >> (GLYPH_WIDTH - 1 - column) & 1 == 1;
                    pixels.fill(if lit { WHITE } else { BLACK });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_reads_back_at_every_size_and_after_every_redraw() {
        for (width, height) in
            [(160, 90), (320, 180), (640, 360), (854, 480), (1280, 720), (1920, 1080), (90 * 2, 640)]
        {
            let mut picture =
                Picture::new(width, height, "demo <label> far too long for the picture").unwrap();
            for counter in 0..200 {
                let unix_ms = 1_763_820_000_000 + counter * 33;
                let frame = picture.draw(Duration::from_millis(unix_ms), counter).unwrap();
                let (luma, stride) = frame.plane_mut(0).unwrap();
                assert_eq!(clock_code::read(luma, stride, side(width), side(height)), Some(unix_ms));
            }
        }
    }

    #[test]
    fn the_ball_leaves_no_trail() {
        let mut moved = Picture::new(320, 180, "x").unwrap();
        for counter in 0..150 {
            moved.draw(Duration::from_secs(counter), counter).unwrap();
        }
        let mut fresh = Picture::new(320, 180, "x").unwrap();
        fresh.draw(Duration::from_secs(149), 149).unwrap();
        for plane in 0..3 {
            let (seen, stride) = moved.frame.plane_mut(plane).unwrap();
            let seen: Vec<u8> = seen.chunks(stride).flat_map(|row| row[..160].to_vec()).collect();
            let (want, stride) = fresh.frame.plane_mut(plane).unwrap();
            let want: Vec<u8> = want.chunks(stride).flat_map(|row| row[..160].to_vec()).collect();
            assert!(seen == want, "plane {plane}");
        }
    }

    #[test]
    fn the_clock_is_utc_with_milliseconds() {
        assert_eq!(clock_text(1_763_820_113_007), "14:01:53.007");
    }
}
