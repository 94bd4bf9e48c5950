//! The machine-readable clock burned into the test source's picture. Pure.
//!
//! Geometry, in fractions of the picture, so that it survives scaling: the width is cut into [`COLUMNS`] = 60 columns of
//! W/60 each; the row of blocks spans 53/60 H to 58/60 H, so its middle is at 55.5/60 H = 0.925 H, and the middle of
//! column c is at (c + 0.5)/60 W. Columns 0 and 59 are black; column 1 is white and column 58 is black, for a reader to
//! take its threshold halfway between them; columns 2 to 57 are the [`BITS`] = 56 bits, white = 1:
//!
//! - columns 2 to 49: the wall clock in milliseconds since the Unix epoch, 48 bits, most significant first;
//! - columns 50 to 57: CRC-8 (polynomial 0x07, initial value 0, not reflected) of those six bytes, in the same order.
//!
//! White is luma 235, black is luma 16, chroma is neutral.
#![deny(clippy::disallowed_methods)]

/// Columns the picture's width is cut into.
pub const COLUMNS: u32 = 60;
/// Bits of the code: 48 of time, 8 of check.
pub const BITS: usize = 56;
/// Top and bottom of the row, in sixtieths of the height.
pub const ROW_SIXTIETHS: (u32, u32) = (53, 58);

const GUARD_COLUMNS: usize = 2;

/// The colour of every column for a wall clock: `true` is white.
#[must_use]
pub fn columns(unix_ms: u64) -> [bool; COLUMNS as usize] {
    let code = (unix_ms & 0xffff_ffff_ffff) << 8 | u64::from(crc8(time_bytes(unix_ms)));
    let mut columns = [false; COLUMNS as usize];
    columns[1] = true;
    for (bit, column) in columns[GUARD_COLUMNS..].iter_mut().take(BITS).enumerate() {
        *column = code >> (BITS - 1 - bit) & 1 == 1;
    }
    columns
}

/// Reads the clock back from the luma plane of a decoded picture of any size, or `None` if the check fails.
///
/// `stride` is the distance between rows in bytes.
#[must_use]
pub fn read(luma: &[u8], stride: usize, width: usize, height: usize) -> Option<u64> {
    let columns = COLUMNS as usize;
    let row = (height * 111 / 120).checked_mul(stride)?;
    let at = |column: usize| luma.get(row + (2 * column + 1) * width / (2 * columns)).copied();
    let threshold = (u16::from(at(1)?) + u16::from(at(columns - 2)?)) / 2;
    let mut code = 0u64;
    for column in GUARD_COLUMNS..GUARD_COLUMNS + BITS {
        code = code << 1 | u64::from(u16::from(at(column)?) > threshold);
    }
    let unix_ms = code >> 8;
    (crc8(time_bytes(unix_ms)) == code.to_be_bytes()[7]).then_some(unix_ms)
}

fn time_bytes(unix_ms: u64) -> [u8; 6] {
    let [_, _, bytes @ ..] = unix_ms.to_be_bytes();
    bytes
}

fn crc8(bytes: [u8; 6]) -> u8 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc: u8, _| if crc & 0x80 == 0 { crc << 1 } else { crc << 1 ^ 0x07 })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn draw(unix_ms: u64, width: usize, height: usize) -> Vec<u8> {
        let columns = columns(unix_ms);
        let level = |white| if white { 235 } else { 16 };
        let row: Vec<u8> = (0..width).map(|x| level(columns[x * columns.len() / width])).collect();
        row.repeat(height)
    }

    #[test]
    fn the_check_is_the_published_crc8() {
        assert_eq!(crc8(*b"123456"), 0xfd);
    }

    proptest! {
        #[test]
        fn what_is_drawn_is_read(unix_ms in 0u64..1 << 48, width in 240usize..700, height in 60usize..100) {
            prop_assert_eq!(read(&draw(unix_ms, width, height), width, width, height), Some(unix_ms));
        }

        #[test]
        fn one_wrong_block_is_noticed(unix_ms in 0u64..1 << 48, block in 2usize..58) {
            let (width, height) = (600, 60);
            let mut luma = draw(unix_ms, width, height);
            for byte in luma.chunks_mut(width).flat_map(|row| &mut row[block * 10..block * 10 + 10]) {
                *byte = 251 - *byte;
            }
            prop_assert_eq!(read(&luma, width, width, height), None);
        }

        #[test]
        fn any_plane_is_survived(luma in proptest::collection::vec(any::<u8>(), 0..400), stride in 0usize..40) {
            let _ = read(&luma, stride, 60, 30);
        }
    }
}
