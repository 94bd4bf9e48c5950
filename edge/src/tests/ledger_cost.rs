//! What viewer accounting costs: memory for each session, allocations for each request. Counted by the allocator of the
//! tests, for each thread by itself.

use crate::ledger::{Due, Ended, Ledger, Place, Waited, Who};
use sigma_report::report::Protocol;
use sigma_report::spans::Span;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::time::Instant;
use tikv_jemallocator::Jemalloc;

struct Counting;

thread_local! {
    static BYTES: Cell<i64> = const { Cell::new(0) };
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn bytes(layout: Layout) -> i64 {
    i64::try_from(layout.size()).unwrap_or(i64::MAX)
}

#[expect(unsafe_code, reason = "an allocator that counts, around the one of the edge")]
// SAFETY: everything is passed on unchanged; the counters are constants until they are written, and allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = BYTES.try_with(|count| count.set(count.get() + bytes(layout)));
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promised.
        unsafe { Jemalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let _ = BYTES.try_with(|count| count.set(count.get() - bytes(layout)));
        // SAFETY: as the caller promised.
        unsafe { Jemalloc.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SESSIONS: u32 = 20_000;
const T0: u64 = 1_790_000_000_000;

fn who(n: u32) -> Who {
    let mut session = [7; 16];
    session[..4].copy_from_slice(&n.to_be_bytes());
    Who { session, viewer: u64::from(n), channel: 0, protocol: Protocol::H2 }
}

/// A second of a viewer of 200 ms parts: held reloads, and parts. Returns its place.
fn second(ledger: &mut Ledger, who: &Who, mut place: Place, from_ms: u64) -> Place {
    for n in 0..5 {
        let now_ms = from_ms + n * 200;
        place = ledger.hold(who, place, now_ms);
        ledger.release(place, Waited::Answered, now_ms + 150);
        let playlist = Ended { good: true, ..Ended::default() };
        place = ledger.ended(who, place, (&playlist, now_ms + 150));
        ledger.sent(who.channel, who.protocol, (1_000, now_ms + 150));
        let start = now_ms * 1000;
        let watched = Some(Span { start, end: start + 200_000 });
        let part = Ended { watched, media: true, first_byte_ms: None, good: true };
        place = ledger.ended(who, place, (&part, now_ms + 160));
        ledger.sent(who.channel, who.protocol, (60_000, now_ms + 160));
    }
    place
}

#[test]
fn a_session_takes_400_bytes_and_a_request_allocates_nothing() {
    let mut places = vec![0; SESSIONS as usize];
    let before = BYTES.get();
    let mut ledger = Ledger::new(SESSIONS as usize);
    for (n, place) in (0..).zip(&mut places) {
        *place = second(&mut ledger, &who(n), 0, T0);
    }
    let per_session = (BYTES.get() - before) / i64::from(SESSIONS);
    let mut due = Due::default();
    ledger.due(T0 + 1_000, true, &mut due);
    assert_eq!((due.sessions.len(), due.known), (SESSIONS as usize, u64::from(SESSIONS)));

    let (allocations, began) = (ALLOCATIONS.get(), Instant::now());
    for (n, place) in (0..).zip(&mut places) {
        *place = second(&mut ledger, &who(n), *place, T0 + 1_000);
    }
    let (took, requests) = (began.elapsed(), u64::from(SESSIONS) * 10);
    let allocated = ALLOCATIONS.get() - allocations;
    let figures = format!(
        "{per_session} bytes a session, {} ns and {allocated} allocations in {requests} requests",
        took.as_nanos() / u128::from(requests)
    );
    println!("{figures}");
    assert!(per_session <= 400, "{figures}");
    // A list of seconds may grow.
    assert!(allocated <= 4, "{figures}");
}
