use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

type Sample = Object<&'static str, u32>;

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[test]
fn waiters_follow_an_object_from_its_head_to_its_end() {
    let mut object = Sample::new();
    let (a, b) = (object.join(9).unwrap(), object.join(9).unwrap());
    assert_eq!(object.read_head(&a, || 1), Step::Wait);
    assert_eq!(object.read_head(&b, || 2), Step::Wait);
    assert_eq!(object.head("head"), vec![1, 2]);
    assert_eq!(object.read_head(&a, || 1), Step::Ready("head"));
    assert_eq!(object.read_chunk(&a, 0, || 1), Step::Wait);
    assert_eq!(object.chunk(bytes("x")), vec![1], "b is awake already");
    assert_eq!(object.read_chunk(&a, 0, || 1), Step::Ready(Some(bytes("x"))));
    assert_eq!(object.read_chunk(&a, 1, || 1), Step::Wait);
    let late = object.join(9).unwrap();
    assert_eq!(object.read_head(&late, || 3), Step::Ready("head"));
    assert_eq!(object.read_chunk(&late, 0, || 3), Step::Ready(Some(bytes("x"))));
    assert!(!object.is_over());
    assert_eq!(object.complete(), vec![1]);
    assert!(object.is_over());
    assert_eq!(object.read_chunk(&a, 1, || 1), Step::Ready(None));
    assert!(object.abort(Cause::Broken).is_empty(), "complete is final");
    assert_eq!(object.read_chunk(&late, 1, || 3), Step::Ready(None));
}

#[test]
fn an_aborted_fill_is_never_an_end() {
    for with_head in [false, true] {
        let mut object = Sample::new();
        let a = object.join(9).unwrap();
        if with_head {
            object.head("head");
            object.chunk(bytes("x"));
        }
        object.abort(Cause::TimedOut);
        let expected = if with_head { Step::Ready("head") } else { Step::Aborted(Cause::TimedOut) };
        assert_eq!(object.read_head(&a, || 1), expected);
        assert_eq!(object.read_chunk(&a, usize::from(with_head), || 1), Step::Aborted(Cause::TimedOut));
        object.complete();
        assert_eq!(object.read_chunk(&a, 1, || 1), Step::Aborted(Cause::TimedOut), "aborted is final");
    }
}

#[test]
fn places_are_bounded_and_come_back() {
    let mut object = Sample::new();
    let a = object.join(2).unwrap();
    let b = object.join(2).unwrap();
    assert_eq!(object.join(2), None);
    assert_eq!(object.read_head(&a, || 1), Step::Wait);
    object.leave(a);
    assert_eq!(object.waiters(), 1);
    assert!(object.head("head").is_empty(), "who left is not woken");
    assert!(object.join(2).is_some());
    object.leave(b);
    assert_eq!(object.waiters(), 1);
}

#[test]
fn shed_viewers_come_back_apart() {
    let spread: BTreeSet<u32> = (0..100).map(retry_after_s).collect();
    assert_eq!(spread, BTreeSet::from([1, 2, 3]));
}

/// One thing that happens in the simulated run below.
#[derive(Debug, Clone)]
enum Event {
    Ask,
    Leave(usize),
    Read(usize),
    Head,
    Chunk(u8),
    Complete,
    Abort,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Ask),
        2 => (0..8_usize).prop_map(Event::Leave),
        8 => (0..8_usize).prop_map(Event::Read),
        2 => Just(Event::Head),
        4 => any::<u8>().prop_map(Event::Chunk),
        1 => Just(Event::Complete),
        1 => Just(Event::Abort),
    ]
}

/// A viewer of the simulated run.
struct Reader {
    fill: usize,
    ticket: Option<Ticket>,
    read: Vec<u8>,
    chunks: usize,
    asleep: bool,
    ended: Option<bool>,
}

/// One key of a cache: fills come and go, viewers ask, read and leave in any order.
#[derive(Default)]
struct Run {
    fills: Vec<Object<u8, usize>>,
    sent: Vec<Vec<u8>>,
    /// The fill in the cache's hands; `None` is Absent.
    current: Option<usize>,
    readers: Vec<Reader>,
}

const WAITERS_MAX: usize = 3;

impl Run {
    fn ask(&mut self) {
        let fill = *self.current.get_or_insert_with(|| {
            self.fills.push(Object::new());
            self.sent.push(Vec::new());
            self.fills.len() - 1
        });
        if let Some(ticket) = self.fills[fill].join(WAITERS_MAX) {
            self.readers.push(Reader {
                fill,
                ticket: Some(ticket),
                read: Vec::new(),
                chunks: 0,
                asleep: false,
                ended: None,
            });
        } else {
            assert_eq!(self.fills[fill].waiters(), WAITERS_MAX, "shed only when full");
        }
    }

    fn read(&mut self, n: usize) {
        let Some(reader) = self.readers.get_mut(n) else {
            return;
        };
        let (Some(ticket), None) = (&reader.ticket, reader.ended) else {
            return;
        };
        match self.fills[reader.fill].read_chunk(ticket, reader.chunks, || n) {
            Step::Ready(Some(chunk)) => {
                reader.read.extend_from_slice(&chunk);
                reader.chunks += 1;
            }
            Step::Ready(None) => {
                assert_eq!(reader.read, self.sent[reader.fill], "an end is the whole object");
                reader.ended = Some(true);
            }
            Step::Aborted(_) => reader.ended = Some(false),
            Step::Wait => reader.asleep = true,
        }
    }

    fn leave(&mut self, n: usize) {
        let Some(reader) = self.readers.get_mut(n) else {
            return;
        };
        if let Some(ticket) = reader.ticket.take() {
            self.fills[reader.fill].leave(ticket);
            reader.asleep = false;
        }
    }

    fn upstream(&mut self, event: &Event) {
        let Some(current) = self.current else { return };
        let fill = &mut self.fills[current];
        let woken = match event {
            Event::Head => fill.head(1),
            Event::Chunk(byte) => {
                let before = fill.chunks().len();
                let woken = fill.chunk(Bytes::from(vec![*byte]));
                if fill.chunks().len() > before {
                    self.sent[current].push(*byte);
                }
                woken
            }
            Event::Complete if matches!(fill.phase, Phase::Streaming(_)) => {
                self.current = None;
                fill.complete()
            }
            Event::Abort => {
                self.current = None;
                fill.abort(Cause::Broken)
            }
            _ => return,
        };
        for n in woken {
            assert!(self.readers[n].asleep, "only sleepers are woken");
            self.readers[n].asleep = false;
        }
        let forgotten = self.readers.iter().any(|r| r.asleep && r.fill == current);
        assert!(!forgotten, "everybody who sleeps is woken");
    }
}

proptest! {
    #[test]
    fn any_order_of_events(events in prop::collection::vec(event(), 1..120)) {
        let mut run = Run::default();
        for event in &events {
            match event {
                Event::Ask => run.ask(),
                Event::Leave(n) => run.leave(*n),
                Event::Read(n) => run.read(*n),
                _ => run.upstream(event),
            }
        }
        run.upstream(&Event::Abort);
        for n in 0..run.readers.len() {
            for _ in 0..=events.len() {
                run.read(n);
            }
            prop_assert!(run.readers[n].ticket.is_none() || run.readers[n].ended.is_some(), "nobody hangs");
            run.leave(n);
        }
        prop_assert!(run.fills.iter().all(|fill| fill.waiters() == 0), "nobody is left behind");
    }
}
