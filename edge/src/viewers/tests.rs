//! The wall clock is set while viewers watch, in virtual time.

use super::*;
use sigma_report::spans::{Span, Spans};
use std::collections::HashMap;
use std::time::Duration;

const T0: u64 = 1_790_000_000_000;
const HOUR_MS: i64 = 3_600_000;
const VIEWERS: u8 = 40;

struct Lab {
    viewers: Arc<Viewers>,
    channel: u32,
    /// The true time, since the beginning.
    seconds: u64,
    present: HashMap<[u8; 16], Spans>,
    /// Of every second: who is present, until when everything is told, and by how much the clock was turned.
    told: Vec<(u64, u64, Option<i64>)>,
}

impl Lab {
    fn new() -> Self {
        let viewers = Viewers::starting_at(1_000, T0);
        let channel = viewers.channel(&"demo".parse().unwrap()).unwrap();
        Self { viewers, channel, seconds: 0, present: HashMap::new(), told: Vec::new() }
    }

    fn who(&self, viewer: u8) -> Who {
        Who { session: [viewer; 16], viewer: 1, channel: self.channel, protocol: Protocol::H2 }
    }

    /// Everybody gets parts; half of them wait for the next one all the time.
    async fn run(&mut self, seconds: u64, wall_off_by_ms: i64) {
        for _ in 0..seconds {
            let mut held = Vec::new();
            for viewer in 0..VIEWERS {
                let who = self.who(viewer);
                let start = self.seconds * 1_000_000;
                let watched = Span::new(start, start + 1_000_000);
                let ended = Ended { watched, media: true, first_byte_ms: None, good: true };
                self.viewers.tell(&who, &ended, 10);
                if viewer % 2 == 0 {
                    let mut shard = self.viewers.shard(&who.session);
                    let now_ms = shard.now_ms();
                    held.push((who, shard.ledger.hold(&who, 0, now_ms)));
                }
            }
            tokio::time::advance(Duration::from_secs(1)).await;
            self.seconds += 1;
            let wall_ms = (T0 + self.seconds * 1_000).saturating_add_signed(wall_off_by_ms);
            let told = self.viewers.due_by(wall_ms, false);
            for session in told.due.sessions {
                let present = self.present.entry(session.session).or_default();
                session.present.iter().for_each(|span| drop(present.insert(*span)));
            }
            self.told.push((told.due.present, told.complete_until_ms, told.turned_ms));
            for (who, place) in held {
                let mut shard = self.viewers.shard(&who.session);
                let now_ms = shard.now_ms();
                shard.ledger.release(place, Waited::Answered, now_ms);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_is_set_ends_nobody_and_freezes_nothing() {
    for step_ms in [HOUR_MS, -HOUR_MS, 24 * HOUR_MS, -24 * HOUR_MS] {
        let mut lab = Lab::new();
        lab.run(20, 0).await;
        lab.run(60, step_ms).await;
        assert!(
            lab.told.iter().all(|(present, ..)| *present == u64::from(VIEWERS)),
            "{step_ms}: {:?}",
            lab.told
        );
        let turns: Vec<_> = lab.told.iter().filter_map(|(.., turned)| *turned).collect();
        assert_eq!(turns, [step_ms]);
        // What is told goes on by a second each second, and by the new time after the turn.
        let until: Vec<u64> = lab.told.iter().map(|(_, until, _)| *until).collect();
        let turned = lab.told.iter().position(|(.., turned)| turned.is_some()).unwrap();
        assert!(until[..=turned].windows(2).all(|two| two[1] - two[0] == 1_000), "{until:?}");
        assert!(until[turned + 1..].windows(2).all(|two| two[1] - two[0] == 1_000), "{until:?}");
        assert_eq!(until.last(), Some(&(T0 + 80_000).saturating_add_signed(step_ms)));
        for (session, present) in &lab.present {
            let length = present.length();
            assert!((78_900..=80_100).contains(&length), "{step_ms}: {length} of {session:?}: {present:?}");
        }
        // And who leaves has left.
        tokio::time::advance(Duration::from_secs(5)).await;
        let wall_ms = (T0 + 85_000).saturating_add_signed(step_ms);
        assert_eq!(lab.viewers.due_by(wall_ms, false).due.present, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_is_drawn_back_tells_no_moment_twice() {
    let mut lab = Lab::new();
    lab.run(5, 0).await;
    lab.run(60, -900).await;
    let until: Vec<u64> = lab.told.iter().map(|(_, until, _)| *until).collect();
    assert!(until.windows(2).all(|two| (980..=1_000).contains(&(two[1] - two[0]))), "{until:?}");
    assert_eq!(until.last(), Some(&(T0 + 65_000 - 900)));
    assert!(lab.told.iter().all(|(present, _, turned)| (*present, *turned) == (u64::from(VIEWERS), None)));
}
