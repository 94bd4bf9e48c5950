//! How many HTTP/2 frames that ask for nothing a peer may send: pings, settings, priorities, window updates, resets,
//! continuations and body bytes nobody reads. Each is legal and cheap alone; a flood of them is an attack. On HTTP/3, how
//! many requests it may give up; all else is bounded by QUIC.
//!
//! Invariants: frames are counted from their nine-byte headers, whatever pieces the bytes come in; a peer that takes
//! what it asked for earns credit, so an honest one never runs out. Deliberately absent: checking the frames, which is
//! the protocol library's, and HTTP/1, which has no such frames.
#![deny(clippy::disallowed_methods)]

use std::time::Duration;

/// HTTP/2's connection preface.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length, type, flags and stream id.
const FRAME_HEADER_BYTES: usize = 9;
const TYPE_DATA: u8 = 0x0;
const TYPE_HEADERS: u8 = 0x1;
/// A peer that takes this many bytes of responses may send one more frame about it. Common clients send two window
/// updates per 4 KiB at most.
const BYTES_PER_CREDIT: u64 = 1024;
/// A DATA frame of a viewer costs one, and one more for each of these: nobody reads what it holds.
pub(crate) const VIEWER_DATA_BYTES_PER_COST: u64 = 1024;
/// One of a POP, whose reports are read, costs one, and one more for each of these.
pub(crate) const POP_DATA_BYTES_PER_COST: u64 = 65_536;

/// The peer sent more frames that ask for nothing than anybody needs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more control frames or given up requests than answers explain")]
pub(crate) struct Flood;

/// What a peer may spend.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    /// Frames at once.
    pub(crate) burst: u32,
    /// Frames per second, on top of what responses earn.
    pub(crate) per_s: u32,
    /// A DATA frame of so many bytes costs one more.
    pub(crate) data_bytes_per_cost: u64,
}

/// What a peer has left to spend.
#[derive(Debug)]
pub(crate) struct Budget {
    allowance: Allowance,
    level: u64,
    refilled: Duration,
    /// Written bytes that did not make a whole credit.
    change: u64,
}

/// The bytes of one HTTP/2 connection as they come.
#[derive(Debug)]
pub(crate) struct FrameBudget {
    budget: Budget,
    at: At,
}

#[derive(Debug)]
enum At {
    /// This much of the preface was seen.
    Preface(usize),
    /// This much of a frame's header was seen.
    Header([u8; FRAME_HEADER_BYTES], usize),
    /// This much of a frame's payload is still to come.
    Payload(usize),
    /// Not HTTP/2.
    Other,
}

impl FrameBudget {
    /// The budget of a connection that begins.
    pub(crate) fn new(allowance: Allowance) -> Self {
        Self { budget: Budget::new(allowance), at: At::Preface(0) }
    }

    /// Counts what arrived; `age` is the connection's.
    ///
    /// # Errors
    /// The budget is spent: close the connection.
    pub(crate) fn received(&mut self, mut bytes: &[u8], age: impl Fn() -> Duration) -> Result<(), Flood> {
        while let Some(&first) = bytes.first() {
            match &mut self.at {
                At::Other => return Ok(()),
                At::Preface(seen) => {
                    if PREFACE.get(*seen) != Some(&first) {
                        self.at = At::Other;
                        return Ok(());
                    }
                    *seen += 1;
                    bytes = &bytes[1..];
                    if *seen == PREFACE.len() {
                        self.at = At::Header([0; FRAME_HEADER_BYTES], 0);
                    }
                }
                At::Header(header, seen) => {
                    let take = (FRAME_HEADER_BYTES - *seen).min(bytes.len());
                    header[*seen..*seen + take].copy_from_slice(&bytes[..take]);
                    *seen += take;
                    bytes = &bytes[take..];
                    if *seen == FRAME_HEADER_BYTES {
                        let (length, cost) = cost(*header, self.budget.allowance.data_bytes_per_cost);
                        self.at = match length {
                            0 => At::Header([0; FRAME_HEADER_BYTES], 0),
                            length => At::Payload(length),
                        };
                        self.budget.spend(cost, &age)?;
                    }
                }
                At::Payload(left) => {
                    let take = (*left).min(bytes.len());
                    *left -= take;
                    bytes = &bytes[take..];
                    if *left == 0 {
                        self.at = At::Header([0; FRAME_HEADER_BYTES], 0);
                    }
                }
            }
        }
        Ok(())
    }

    /// Counts what the peer took.
    pub(crate) fn written(&mut self, bytes: usize) {
        self.budget.written(bytes as u64);
    }
}

impl Budget {
    /// Of a connection that begins.
    pub(crate) fn new(allowance: Allowance) -> Self {
        Self { allowance, level: allowance.burst.into(), refilled: Duration::ZERO, change: 0 }
    }

    /// Counts what the peer took.
    pub(crate) fn written(&mut self, bytes: u64) {
        self.change += bytes;
        self.level = (self.level + self.change / BYTES_PER_CREDIT).min(self.allowance.burst.into());
        self.change %= BYTES_PER_CREDIT;
    }

    /// Counts what it did; `age` is the connection's.
    ///
    /// # Errors
    /// The budget is spent: close the connection.
    pub(crate) fn spend(&mut self, cost: u64, age: &impl Fn() -> Duration) -> Result<(), Flood> {
        if self.level < cost {
            // The clock is read only here: most connections never come this far.
            let (now, per_s) = (age(), u64::from(self.allowance.per_s));
            let ms = u64::try_from(now.saturating_sub(self.refilled).as_millis()).unwrap_or(u64::MAX);
            self.refilled = now;
            let earned = ms.saturating_mul(per_s) / 1000;
            self.level = self.level.saturating_add(earned).min(self.allowance.burst.into());
        }
        self.level = self.level.checked_sub(cost).ok_or(Flood)?;
        Ok(())
    }
}

/// A frame's payload length and what it costs.
fn cost(header: [u8; FRAME_HEADER_BYTES], data_bytes_per_cost: u64) -> (usize, u64) {
    let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
    let cost = match header[3] {
        TYPE_HEADERS => 0,
        TYPE_DATA => 1 + length as u64 / data_bytes_per_cost,
        _ => 1,
    };
    (length, cost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMALL: Allowance =
        Allowance { burst: 10, per_s: 5, data_bytes_per_cost: VIEWER_DATA_BYTES_PER_COST };

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![0, (length >> 8) as u8, length as u8, kind, 0, 0, 0, 0, 0];
        bytes.resize(FRAME_HEADER_BYTES + length, 0xff);
        bytes
    }

    fn frames_until_flood(budget: &mut FrameBudget, one: &[u8], age: Duration) -> Option<usize> {
        (0..1000).find(|_| budget.received(one, || age).is_err())
    }

    #[test]
    fn what_asks_for_nothing_is_counted() {
        for (kind, length, allowed) in [
            (0x6, 8, Some(10)),
            (0x4, 0, Some(10)),
            (0x2, 5, Some(10)),
            (0x8, 4, Some(10)),
            (0x3, 4, Some(10)),
            (0x9, 100, Some(10)),
            (0xbe, 3, Some(10)),
            (0x0, 0, Some(10)),
            (0x0, 4096, Some(2)),
            (0x1, 30, None),
        ] {
            let mut budget = FrameBudget::new(SMALL);
            budget.received(PREFACE, || Duration::ZERO).unwrap();
            let flooded = frames_until_flood(&mut budget, &frame(kind, length), Duration::ZERO);
            assert_eq!(flooded, allowed, "{kind:#x} of {length}");
        }
    }

    #[test]
    fn bodies_that_are_read_cost_their_frames_alone() {
        let of_pops = Allowance { data_bytes_per_cost: POP_DATA_BYTES_PER_COST, ..SMALL };
        for (kind, allowed) in [(TYPE_DATA, 10), (0x6, 10)] {
            let mut budget = FrameBudget::new(of_pops);
            budget.received(PREFACE, || Duration::ZERO).unwrap();
            let flooded = frames_until_flood(&mut budget, &frame(kind, 16_384), Duration::ZERO);
            assert_eq!(flooded, Some(allowed), "{kind:#x}");
        }
    }

    #[test]
    fn time_and_taken_bytes_earn_credit_up_to_the_burst() {
        let nothing = frame(0x4, 0);
        let mut budget = FrameBudget::new(SMALL);
        budget.received(PREFACE, || Duration::ZERO).unwrap();
        assert_eq!(frames_until_flood(&mut budget, &nothing, Duration::ZERO), Some(10));
        assert_eq!(frames_until_flood(&mut budget, &nothing, Duration::from_secs(1)), Some(5));
        assert_eq!(frames_until_flood(&mut budget, &nothing, Duration::from_secs(3600)), Some(10));
        budget.written(1024);
        budget.written(1000);
        budget.written(24);
        assert_eq!(frames_until_flood(&mut budget, &nothing, Duration::from_secs(3600)), Some(2));
        budget.written(1 << 30);
        assert_eq!(frames_until_flood(&mut budget, &nothing, Duration::from_secs(3600)), Some(10));
    }

    #[test]
    fn http_1_is_not_looked_at() {
        let mut budget = FrameBudget::new(SMALL);
        let bytes = b"PRIVET / HTTP/1.1\r\n".repeat(1000);
        assert_eq!(budget.received(&bytes, || Duration::ZERO), Ok(()));
        assert!(matches!(budget.at, At::Other));
    }

    #[test]
    fn requests_that_are_given_up_are_counted_as_frames_are() {
        let mut budget = Budget::new(SMALL);
        let now = || Duration::ZERO;
        assert_eq!((budget.spend(10, &now), budget.spend(1, &now)), (Ok(()), Err(Flood)));
        budget.written(2048);
        assert_eq!((budget.spend(2, &now), budget.spend(1, &now)), (Ok(()), Err(Flood)));
        assert_eq!(budget.spend(5, &|| Duration::from_secs(1)), Ok(()));
    }

    proptest! {
        /// However the bytes are cut, the same frames are seen.
        #[test]
        fn pieces_do_not_matter(
            frames in proptest::collection::vec((0_u8..10, 0_usize..300), 0..40),
            cut in 1_usize..50,
        ) {
            let mut bytes = PREFACE.to_vec();
            frames.iter().for_each(|(kind, length)| bytes.extend(frame(*kind, *length)));
            let mut whole = FrameBudget::new(Allowance { burst: 30, per_s: 0, ..SMALL });
            let mut pieces = FrameBudget::new(Allowance { burst: 30, per_s: 0, ..SMALL });
            let at_once = whole.received(&bytes, || Duration::ZERO);
            let piecewise = bytes.chunks(cut).try_for_each(|piece| pieces.received(piece, || Duration::ZERO));
            prop_assert_eq!(at_once, piecewise);
            let counted = frames.iter().filter(|(kind, _)| *kind != TYPE_HEADERS).count();
            prop_assert_eq!(at_once.is_err(), counted > 30);
        }
    }
}
