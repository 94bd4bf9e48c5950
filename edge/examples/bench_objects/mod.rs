//! What the measuring servers agree on: how a path says what is wanted, and bodies that say when they were made.

use bytes::Bytes;

/// A body of so many bytes that begins with `A` and the nanoseconds of CLOCK_MONOTONIC, which `bench_client` reads too.
pub(crate) fn stamped(bytes: u64) -> Bytes {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let mut body = format!("A{:020} ", now.tv_sec * 1_000_000_000 + now.tv_nsec).into_bytes();
    body.resize(usize::try_from(bytes).unwrap_or(0).max(body.len()), b'x');
    body.into()
}

/// The number after `letter` in `words`, which are separated by `-`.
pub(crate) fn number(words: &str, letter: char) -> u64 {
    words.split('-').find_map(|word| word.strip_prefix(letter)?.parse().ok()).unwrap_or(0)
}
