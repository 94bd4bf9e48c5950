//! A session's requests that wait for their answers: what they say of it when they are answered, called off, or left.
//!
//! Invariant: a lane has one request at a time.

use super::{Session, State};
use crate::player::{Kind, Want};
use crate::watched::Touch;
use crate::wire::Answer;
use std::time::Instant;

/// A request under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    sent_ms: u64,
    /// Start and duration of the media asked for; 0 where the duration is not known yet.
    media: Option<(u64, u64)>,
}

impl Waiting {
    pub(super) fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.sent_ms)
    }
}

impl Session {
    /// A request goes out on a lane: it waits from now on, for that stretch of media or for something else.
    pub(in crate::viewer) fn waits(&self, lane: usize, media: Option<&Want>) {
        let sent_ms = self.unix_ms(Instant::now());
        let media = media.filter(|want| want.kind != Kind::Init);
        let media = media.map(|want| (want.start_us, want.duration_us));
        self.state.borrow_mut().waiting[lane] = Some(Waiting { sent_ms, media });
    }

    /// It waits no more; what came is accounted for.
    pub(in crate::viewer) fn came(&self, lane: usize, result: Option<(&Answer, bool)>) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        state.waiting[lane] = None;
        let Some((answer, media)) = result else { return };
        if let Some(pop) = &answer.pop {
            self.crowd.name_pop(state.slice, pop);
            state.pop = Some(pop.clone());
        }
        // Where it got media it was; a playlist alone is not watched.
        if media
            && answer.status == 200
            && let Some(pop) = state.pop.take_if(|pop| !state.pops.contains(pop))
        {
            state.pops.push(pop);
        }
        if answer.status == 200 {
            state.presence.touched(&Touch {
                sent_ms: self.unix_ms(answer.sent),
                first_byte_ms: self.unix_ms(answer.first_byte),
                ended_ms: self.unix_ms(answer.ended),
                media,
            });
        }
    }

    /// Everything that is under way is called off: it kept the viewer present until now.
    pub(in crate::viewer) fn calls_off(&self) {
        let now_ms = self.unix_ms(Instant::now());
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        state.let_go_us += state.under_way_us();
        let waiting = std::mem::take(&mut state.waiting);
        if waiting.iter().flatten().any(|waiting| waiting.media.is_some()) {
            state.asked_pops.extend(state.pop.clone());
        }
        for waiting in waiting.into_iter().flatten() {
            state.presence.waited(waiting.sent_ms, now_ms);
        }
    }

    /// The viewer goes: what waits for an answer kept it present until now.
    pub(in crate::viewer) fn ending(&self) {
        self.advance();
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        state.asking = state.waiting.iter().flatten().any(|waiting| waiting.media.is_some());
        state.unseen_us = state.under_way_us();
    }
}

impl State {
    /// How much media is under way that was not watched, in microseconds.
    fn under_way_us(&self) -> u64 {
        let mut all = self.watched.clone();
        for (start, duration) in self.waiting.iter().flatten().filter_map(|waiting| waiting.media) {
            let lasts = if duration > 0 { duration } else { self.longest_part_us };
            all.add((start, start + lasts));
        }
        all.total_us() - self.watched.total_us()
    }
}
