//! Which sessions have a place: what a POP says of the sessions whose tokens limit how many their subject may have at a time,
//! and what is answered about the others of these subjects.
//!
//! On the wire both are a version byte and the fields in order, as postcard writes them. Invariants: a POP says everything
//! that it has at once, so that what is said replaces what was said before; ages, not times, are told, because POPs' clocks
//! differ; subjects, and the sessions of each, are in ascending order, so nothing is named twice; what decodes is within its
//! bounds.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU16;

/// Where POPs post them.
pub const PATH: &str = "/internal/edge/places";
/// The media type of what is said, and of the answer.
pub const MEDIA_TYPE: &str = "application/vnd.sigma-live.places";
/// The most that is said at once, bytes.
pub const BYTES_MAX: usize = 4 << 20;
/// The largest answer, bytes.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;
/// The most sessions that a POP speaks of.
pub const SESSIONS_MAX: usize = 65_536;
/// The most subjects of which it asks without having a session of theirs.
pub const ASKED_MAX: usize = 16_384;
/// The most subjects that are named.
pub const SUBJECTS_MAX: usize = SESSIONS_MAX + ASKED_MAX;
/// The most sessions of one subject.
pub const SESSIONS_PER_SUBJECT_MAX: usize = 1024;
/// The most marks in one answer.
pub const MARKS_MAX: usize = 262_144;
/// What nobody repeats for so long is forgotten, milliseconds: at the origin what a POP said, at the POP what was answered.
pub const FORGOTTEN_AFTER_MS: u64 = 10_000;
const VERSION: u8 = 1;

const _: () = assert!(16 + SUBJECTS_MAX * (8 + 2) + SESSIONS_MAX * (16 + 3 + 5) <= BYTES_MAX);
const _: () =
    assert!(16 + SUBJECTS_MAX * (8 + 5 + 3 + 2) + MARKS_MAX * 4 + SESSIONS_MAX * 16 <= ANSWER_BYTES_MAX);

/// A subject's hash, as in session paths.
pub type Subject = [u8; 8];
/// A session's id.
pub type Session = [u8; 16];
/// The first bytes of a session's id: enough to tell a subject's sessions apart.
pub type Mark = [u8; 4];

/// The mark of a session.
#[must_use]
pub fn mark(session: &Session) -> Mark {
    let [a, b, c, d, ..] = *session;
    [a, b, c, d]
}

/// Everything that a POP has to say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// A random number of the process that speaks: while one follows another, both have sessions.
    pub process: u64,
    /// Of whom it speaks.
    pub subjects: Vec<SubjectPlaces>,
}

/// A subject at a POP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectPlaces {
    /// Who.
    pub subject: Subject,
    /// Its sessions that have a place there; none when the POP asks only, because it refused one.
    pub sessions: Vec<Place>,
}

/// A session that has a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Which.
    pub session: Session,
    /// How many its token allows, this one included.
    pub max: NonZeroU16,
    /// For how long it has it, milliseconds.
    pub age_ms: u32,
}

/// What is known of the subjects that a POP named. Of one that is not in it, there is nothing elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Of whom there is something to say.
    pub subjects: Vec<SubjectAnswer>,
}

/// What is known of a subject.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectAnswer {
    /// Who.
    pub subject: Subject,
    /// How many sessions it has at other POPs alone, without those that lose their place.
    pub elsewhere: u32,
    /// Their marks in ascending order; fewer when an answer would have too many.
    pub marks: Vec<Mark>,
    /// Its sessions here that lose their place.
    pub over: Vec<Session>,
}

/// Why bytes say nothing of places. Sending them again does not help.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPlaces {
    /// Another form.
    #[error("the places have version {0}, known here is {VERSION}")]
    Version(u8),
    /// Not the fields in order.
    #[error("the places cannot be read: {0}")]
    Form(#[from] postcard::Error),
    /// Nothing at all, or more than the fields.
    #[error("the places' {0} is wrong")]
    Range(&'static str),
    /// More than is taken at once.
    #[error("the places have {value} {field}; at most {bound} are taken at once")]
    TooMany {
        /// Of what.
        field: &'static str,
        /// How many.
        value: usize,
        /// The most.
        bound: usize,
    },
}

fn encode(fields: &impl Serialize) -> Result<Vec<u8>, InvalidPlaces> {
    Ok(postcard::to_extend(fields, vec![VERSION])?)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, InvalidPlaces> {
    let (version, fields) = bytes.split_first().ok_or(InvalidPlaces::Range("length"))?;
    if *version != VERSION {
        return Err(InvalidPlaces::Version(*version));
    }
    let (fields, rest) = postcard::take_from_bytes(fields)?;
    if rest.is_empty() { Ok(fields) } else { Err(InvalidPlaces::Range("length")) }
}

fn few(field: &'static str, value: usize, bound: usize) -> Result<(), InvalidPlaces> {
    if value <= bound { Ok(()) } else { Err(InvalidPlaces::TooMany { field, value, bound }) }
}

fn ascending<T: Ord>(
    field: &'static str,
    items: impl Iterator<Item = T> + Clone,
) -> Result<(), InvalidPlaces> {
    let mut pairs = items.clone().zip(items.skip(1));
    if pairs.all(|(one, next)| one < next) { Ok(()) } else { Err(InvalidPlaces::Range(field)) }
}

impl Places {
    /// As bytes.
    ///
    /// # Errors
    /// Never for values of these types; the format's own type of error.
    pub fn encode(&self) -> Result<Vec<u8>, InvalidPlaces> {
        encode(self)
    }

    /// From bytes that somebody else sent.
    ///
    /// # Errors
    /// Another version, something that is no list of places, or more than is taken at once.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidPlaces> {
        let places: Self = decode(bytes)?;
        few("subjects", places.subjects.len(), SUBJECTS_MAX)?;
        few("sessions", places.sessions(), SESSIONS_MAX)?;
        ascending("order of subjects", places.subjects.iter().map(|subject| subject.subject))?;
        for subject in &places.subjects {
            few("sessions of one subject", subject.sessions.len(), SESSIONS_PER_SUBJECT_MAX)?;
            ascending("order of sessions", subject.sessions.iter().map(|place| place.session))?;
        }
        Ok(places)
    }

    /// Of how many sessions they are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.subjects.iter().map(|subject| subject.sessions.len()).sum()
    }
}

impl Answer {
    /// As bytes.
    ///
    /// # Errors
    /// Never for values of these types; the format's own type of error.
    pub fn encode(&self) -> Result<Vec<u8>, InvalidPlaces> {
        encode(self)
    }

    /// From bytes that somebody else sent.
    ///
    /// # Errors
    /// Another version, something that is no answer, or more than one says.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidPlaces> {
        let answer: Self = decode(bytes)?;
        few("subjects", answer.subjects.len(), SUBJECTS_MAX)?;
        few("marks", answer.subjects.iter().map(|subject| subject.marks.len()).sum(), MARKS_MAX)?;
        few("sessions over", answer.subjects.iter().map(|subject| subject.over.len()).sum(), SESSIONS_MAX)?;
        for subject in &answer.subjects {
            // Two sessions may have one mark.
            if !subject.marks.is_sorted() {
                return Err(InvalidPlaces::Range("order of marks"));
            }
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(n: u32) -> Place {
        let mut session = [0xa5; 16];
        session[..4].copy_from_slice(&n.to_be_bytes());
        Place { session, max: NonZeroU16::MAX, age_ms: u32::MAX }
    }

    /// So many subjects with so many sessions each.
    fn places(subjects: u32, sessions: u32) -> Places {
        let subjects = (0..subjects).map(|n| SubjectPlaces {
            subject: u64::from(n).to_be_bytes(),
            sessions: (0..sessions).map(place).collect(),
        });
        Places { process: u64::MAX, subjects: subjects.collect() }
    }

    fn said(places: &Places) -> String {
        Places::decode(&places.encode().unwrap()).map_or_else(|error| error.to_string(), |_| String::new())
    }

    fn count(n: usize) -> u32 {
        u32::try_from(n).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        for places in [Places::default(), places(1, 0), places(3, 2)] {
            assert_eq!(Places::decode(&places.encode().unwrap()), Ok(places));
        }
        let over = vec![[9; 16], [7; 16]];
        let known =
            SubjectAnswer { subject: [1; 8], elsewhere: 3, marks: vec![[1; 4], [1; 4], [2; 4]], over };
        for answer in [Answer::default(), Answer { subjects: vec![known] }] {
            assert_eq!(Answer::decode(&answer.encode().unwrap()), Ok(answer));
        }
        assert_eq!(mark(&place(7).session), [0, 0, 0, 7]);
    }

    #[test]
    fn what_is_too_much_is_named_with_its_bound() {
        let most = places(count(SESSIONS_MAX), 1);
        assert_eq!(said(&most), "");
        let mut asked = most;
        let first = u64::try_from(SESSIONS_MAX).unwrap();
        let nobody = |n: u64| SubjectPlaces { subject: n.to_be_bytes(), sessions: Vec::new() };
        asked.subjects.extend((first..first + u64::try_from(ASKED_MAX).unwrap()).map(nobody));
        assert_eq!(said(&asked), "");
        assert!(asked.encode().unwrap().len() <= BYTES_MAX, "all that may be said can be sent");
        asked.subjects.push(nobody(1 << 40));
        assert_eq!(said(&asked), "the places have 81921 subjects; at most 81920 are taken at once");
        let said_of = |subjects, sessions| said(&places(subjects, sessions));
        assert_eq!(said_of(64, 1024), "");
        assert_eq!(said_of(65, 1009), "the places have 65585 sessions; at most 65536 are taken at once");
        let one = "the places have 1025 sessions of one subject; at most 1024 are taken at once";
        assert_eq!(said_of(1, 1025), one);
    }

    #[test]
    fn nothing_is_named_twice_and_nothing_else_is_taken_for_places() {
        let mut twice = places(2, 2);
        twice.subjects[1].subject = twice.subjects[0].subject;
        assert_eq!(said(&twice), "the places' order of subjects is wrong");
        let mut twice = places(1, 2);
        twice.subjects[0].sessions[1] = twice.subjects[0].sessions[0];
        assert_eq!(said(&twice), "the places' order of sessions is wrong");
        assert_eq!(Places::decode(&[]), Err(InvalidPlaces::Range("length")));
        assert_eq!(Places::decode(&[9]), Err(InvalidPlaces::Version(9)));
        let mut longer = places(1, 1).encode().unwrap();
        longer.push(0);
        assert_eq!(Places::decode(&longer), Err(InvalidPlaces::Range("length")));
    }

    #[test]
    fn an_answer_is_bounded_too() {
        let all = |marks: usize, over: usize| {
            let known = SubjectAnswer {
                elsewhere: u32::MAX,
                marks: vec![[9; 4]; marks],
                over: vec![[9; 16]; over],
                ..SubjectAnswer::default()
            };
            let bytes = Answer { subjects: vec![known] }.encode().unwrap();
            assert!(bytes.len() <= ANSWER_BYTES_MAX);
            Answer::decode(&bytes).map_or_else(|error| error.to_string(), |_| String::new())
        };
        assert_eq!(all(MARKS_MAX, SESSIONS_MAX), "");
        assert!(all(MARKS_MAX + 1, 0).contains("262145 marks; at most 262144"));
        assert!(all(0, SESSIONS_MAX + 1).contains("65537 sessions over; at most 65536"));
        let unordered = SubjectAnswer { marks: vec![[2; 4], [1; 4]], ..SubjectAnswer::default() };
        let bytes = Answer { subjects: vec![unordered] }.encode().unwrap();
        assert_eq!(Answer::decode(&bytes), Err(InvalidPlaces::Range("order of marks")));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..200) {
            let _ = (Places::decode(&bytes), Answer::decode(&bytes));
            let whole = places(2, 2).encode().unwrap();
            prop_assert!(Places::decode(&whole[..cut % whole.len()]).is_err());
        }
    }
}
