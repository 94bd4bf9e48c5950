//! Which sessions have a place anywhere in the cluster, as POPs say it of those whose tokens limit how many their subject may
//! have: what each of them is told of the others'.
//!
//! Invariants: what a process of a POP says replaces what it said before, and is forgotten when it is silent; a session at two
//! POPs (a viewer who moved) is one, and as old as at the older; of a subject's sessions the oldest stay, each as long as fewer
//! than its own token allows are older and stay, whatever the order in which POPs speak; bounded in processes and sessions.
//! Deliberately absent: a clock, and anything that survives this process: every POP says everything again within seconds.
#![deny(clippy::disallowed_methods)]

use sigma_report::places::{
    Answer, FORGOTTEN_AFTER_MS, MARKS_MAX, Mark, Place, Places, Session, Subject, SubjectAnswer, mark,
};
use sigma_shared::id::PopId;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Most processes that are listened to.
const SPEAKERS_MAX: usize = 1024;
/// Most processes of one POP: one, and its successors while it drains. A further one takes the place of the one that spoke last
/// the longest ago.
const SPEAKERS_PER_POP_MAX: usize = 4;
/// Most sessions, each counted at every POP where it has a place; about 100 bytes each.
const ENTRIES_MAX: usize = 1 << 20;

/// Why what a POP says cannot be kept. Not its fault: what it said before counts until it is too old.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value} {field} would have places; at most {bound} are kept here")]
pub(crate) struct TableFull {
    field: &'static str,
    value: usize,
    bound: usize,
}

/// A process that speaks, by the order in which they first did.
type Speaker = u64;

/// A session at one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    session: Session,
    speaker: Speaker,
    max: u16,
    since_ms: i64,
}

struct Spoken {
    pop: PopId,
    process: u64,
    at_ms: i64,
    entries: usize,
    subjects: HashSet<Subject>,
}

/// Who has a place where.
#[derive(Default)]
pub(crate) struct Table {
    next: Speaker,
    speakers: BTreeMap<Speaker, Spoken>,
    /// Of each subject by session, and then by speaker.
    subjects: HashMap<Subject, Vec<Entry>>,
    entries: usize,
    speakers_max: usize,
    entries_max: usize,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self { speakers_max: SPEAKERS_MAX, entries_max: ENTRIES_MAX, ..Self::default() }
    }

    /// Takes what a POP says, and returns what it is to know of the subjects that it named. `now_ms` is of a clock that is
    /// never set.
    ///
    /// # Errors
    /// There is no room. Nothing is changed by it.
    pub(crate) fn hear(&mut self, pop: &PopId, said: &Places, now_ms: i64) -> Result<Answer, TableFull> {
        self.forget_the_silent(now_ms);
        let known =
            self.speakers.iter().find(|(_, other)| other.pop == *pop && other.process == said.process);
        let known = known.map(|(number, spoken)| (*number, spoken.entries));
        let told = said.sessions();
        let (speakers, entries) = (
            self.speakers.len() + usize::from(known.is_none()),
            self.entries + told - known.map_or(0, |(_, entries)| entries),
        );
        let full = |field, value, bound| Err(TableFull { field, value, bound });
        match known {
            _ if entries > self.entries_max => return full("sessions", entries, self.entries_max),
            None if said.subjects.is_empty() => return Ok(Answer::default()),
            None if speakers > self.speakers_max => return full("processes", speakers, self.speakers_max),
            None => self.make_way(pop),
            Some(_) => {}
        }
        let number = known.map_or_else(|| self.begin(pop, said.process, now_ms), |(number, _)| number);
        self.replace(number, said, now_ms);
        let answer = self.answer(number, said);
        if said.subjects.is_empty() {
            self.speakers.remove(&number);
        }
        Ok(answer)
    }

    fn begin(&mut self, pop: &PopId, process: u64, now_ms: i64) -> Speaker {
        self.next += 1;
        let spoken =
            Spoken { pop: pop.clone(), process, at_ms: now_ms, entries: 0, subjects: HashSet::new() };
        self.speakers.insert(self.next, spoken);
        self.next
    }

    /// Whose process was not heard of for long has nobody any more.
    fn forget_the_silent(&mut self, now_ms: i64) {
        let patience = i64::try_from(FORGOTTEN_AFTER_MS).unwrap_or(i64::MAX);
        let silent =
            self.speakers.iter().filter(|(_, spoken)| now_ms.saturating_sub(spoken.at_ms) > patience);
        for number in silent.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.forget(number);
        }
    }

    fn make_way(&mut self, pop: &PopId) {
        let own = self.speakers.iter().filter(|(_, spoken)| spoken.pop == *pop);
        let own: Vec<(i64, Speaker)> = own.map(|(number, spoken)| (spoken.at_ms, *number)).collect();
        if own.len() >= SPEAKERS_PER_POP_MAX
            && let Some((_, oldest)) = own.into_iter().min()
        {
            self.forget(oldest);
        }
    }

    fn forget(&mut self, number: Speaker) {
        self.replace(number, &Places::default(), 0);
        self.speakers.remove(&number);
    }

    /// What a speaker says, in place of what it said before.
    fn replace(&mut self, number: Speaker, said: &Places, now_ms: i64) {
        let Some(spoken) = self.speakers.get_mut(&number) else { return };
        let with_sessions = said.subjects.iter().filter(|subject| !subject.sessions.is_empty());
        let named: HashSet<Subject> = with_sessions.map(|subject| subject.subject).collect();
        let gone: Vec<Subject> = spoken.subjects.difference(&named).copied().collect();
        self.entries = self.entries + said.sessions() - spoken.entries;
        spoken.entries = said.sessions();
        spoken.at_ms = now_ms;
        spoken.subjects = named;
        for subject in gone {
            self.say(number, &subject, (&[], now_ms));
        }
        for subject in said.subjects.iter().filter(|subject| !subject.sessions.is_empty()) {
            self.say(number, &subject.subject, (&subject.sessions, now_ms));
        }
    }

    /// The same of one subject.
    fn say(&mut self, speaker: Speaker, subject: &Subject, (places, now_ms): (&[Place], i64)) {
        let before = self.subjects.remove(subject).unwrap_or_default();
        let mut entries = Vec::with_capacity(before.len() + places.len());
        entries.extend(before.iter().filter(|entry| entry.speaker != speaker));
        entries.extend(places.iter().map(|place| {
            let told_ms = now_ms.saturating_sub(place.age_ms.into());
            // By what was on its way for how long nobody gets older or younger than another: once older is older.
            let earliest = of(&before, &place.session).map(|entry| entry.since_ms).min();
            let since_ms = earliest.map_or(told_ms, |earliest| earliest.min(told_ms));
            Entry { session: place.session, speaker, max: place.max.get(), since_ms }
        }));
        if !entries.is_empty() {
            entries.sort_unstable_by_key(|entry| (entry.session, entry.speaker));
            entries.shrink_to_fit();
            self.subjects.insert(*subject, entries);
        }
    }

    fn answer(&self, speaker: Speaker, said: &Places) -> Answer {
        let mut marks_left = MARKS_MAX;
        let known = said.subjects.iter().filter_map(|named| {
            let entries = self.subjects.get(&named.subject)?;
            let (over, mut marks) = judge(entries, speaker);
            if over.is_empty() && marks.is_empty() {
                return None;
            }
            let elsewhere = u32::try_from(marks.len()).unwrap_or(u32::MAX);
            marks.truncate(marks_left);
            marks_left -= marks.len();
            marks.sort_unstable();
            Some(SubjectAnswer { subject: named.subject, elsewhere, marks, over })
        });
        Answer { subjects: known.collect() }
    }
}

/// A session's entries, of those of its subject.
fn of<'a>(entries: &'a [Entry], session: &Session) -> impl Iterator<Item = &'a Entry> {
    let first = entries.partition_point(|entry| entry.session < *session);
    let last = entries.partition_point(|entry| entry.session <= *session);
    entries[first..last].iter()
}

/// A session, wherever it is.
struct Standing {
    since_ms: i64,
    session: Session,
    max: u16,
    here: bool,
}

impl Standing {
    fn of(entries: &[Entry], speaker: Speaker) -> Option<Self> {
        let first = entries.first()?;
        let (since_ms, max) = entries.iter().fold((first.since_ms, first.max), |(since, max), entry| {
            (since.min(entry.since_ms), max.min(entry.max))
        });
        let here = entries.iter().any(|entry| entry.speaker == speaker);
        Some(Self { since_ms, session: first.session, max, here })
    }

    fn before(&self, other: &Self) -> Ordering {
        (self.since_ms, self.session).cmp(&(other.since_ms, other.session))
    }
}

/// Of a subject's sessions: those of a speaker that lose their place, and the marks of those that are elsewhere only and stay.
fn judge(entries: &[Entry], speaker: Speaker) -> (Vec<Session>, Vec<Mark>) {
    let sessions = entries.chunk_by(|one, next| one.session == next.session);
    let mut standing: Vec<Standing> = sessions.filter_map(|entries| Standing::of(entries, speaker)).collect();
    standing.sort_unstable_by(Standing::before);
    let (mut stay, mut over, mut elsewhere) = (0, Vec::new(), Vec::new());
    for one in standing {
        let stays = stay < usize::from(one.max);
        stay += usize::from(stays);
        match (stays, one.here) {
            (true, false) => elsewhere.push(mark(&one.session)),
            (false, true) => over.push(one.session),
            (true, true) | (false, false) => {}
        }
    }
    (over, elsewhere)
}

#[cfg(test)]
mod tests;
