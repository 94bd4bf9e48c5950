//! What is on disk: which objects, how many bytes, and which of them was not asked for the longest.
//!
//! Invariants: the bytes of all entries are never more than `bytes_max`, nor the entries more than `entries_max`; who has
//! to go for that are those that were asked for the longest ago. An entry takes about 70 bytes of memory. Deliberately
//! absent: names and heads of objects, which are in their files.
#![deny(clippy::disallowed_methods)]

use aws_lc_rs::digest::{SHA256, digest};
use hashlink::LinkedHashMap;
use std::fmt;
use std::str::FromStr;

/// An object's name on disk: a hash of its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ObjectId(u128);

impl ObjectId {
    /// The id of the object with this path and query.
    pub(super) fn of(path: &str) -> Self {
        let hash = digest(&SHA256, path.as_bytes());
        let first = hash.as_ref().first_chunk::<16>().copied();
        Self(first.map_or(0, u128::from_be_bytes))
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Not the name of an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoId;

impl FromStr for ObjectId {
    type Err = NoId;

    fn from_str(name: &str) -> Result<Self, NoId> {
        let spelled = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if name.len() != 32 || !name.bytes().all(spelled) {
            return Err(NoId);
        }
        u128::from_str_radix(name, 16).map(Self).map_err(|_| NoId)
    }
}

/// What is known of an object without opening its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Bytes that its file takes.
    pub(super) bytes: u64,
    /// From then on it is not served any more, Unix milliseconds.
    pub(super) expires_ms: u64,
}

/// What a look finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// It is there, and the newest use is this one.
    Here,
    /// It is there too long; it is the next one that [`Index::expire`] takes out.
    Expired,
    /// It is not there.
    Absent,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Index {
    /// The one that was asked for the longest ago comes first.
    entries: LinkedHashMap<ObjectId, Entry>,
    bytes: u64,
    bytes_max: u64,
    entries_max: usize,
}

impl Index {
    pub(super) fn new(bytes_max: u64, entries_max: usize) -> Self {
        Self { entries: LinkedHashMap::new(), bytes: 0, bytes_max, entries_max }
    }

    /// Of all files, at most.
    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn contains(&self, id: ObjectId) -> bool {
        self.entries.contains_key(&id)
    }

    /// Whether an object need not be written.
    pub(super) fn serves(&self, id: ObjectId, now_ms: u64) -> bool {
        self.entries.get(&id).is_some_and(|entry| entry.expires_ms > now_ms)
    }

    /// Looks for an object that is wanted.
    pub(super) fn find(&mut self, id: ObjectId, now_ms: u64) -> Found {
        match self.entries.get(&id) {
            Some(entry) if entry.expires_ms > now_ms => {
                self.entries.to_back(&id);
                Found::Here
            }
            Some(_) => {
                self.entries.to_front(&id);
                Found::Expired
            }
            None => Found::Absent,
        }
    }

    /// Whose files have to be deleted before one of `bytes` may be written; `None` if it would never fit. They are not
    /// in the index any more.
    pub(super) fn make_room(&mut self, bytes: u64) -> Option<Vec<ObjectId>> {
        if bytes > self.bytes_max || self.entries_max == 0 {
            return None;
        }
        let mut gone = Vec::new();
        while self.bytes > self.bytes_max - bytes || self.entries.len() >= self.entries_max {
            let Some((id, entry)) = self.entries.pop_front() else { break };
            self.bytes -= entry.bytes;
            gone.push(id);
        }
        Some(gone)
    }

    /// Whose files have to be deleted for `bytes` to be free that are not: those that were asked for the longest ago. They are
    /// not in the index any more. Fewer bytes, if there are no more.
    pub(super) fn give_back(&mut self, bytes: u64) -> Vec<ObjectId> {
        let (mut gone, before) = (Vec::new(), self.bytes);
        while before - self.bytes < bytes {
            let Some((id, entry)) = self.entries.pop_front() else { break };
            self.bytes -= entry.bytes;
            gone.push(id);
        }
        gone
    }

    /// An object is on disk, as the newest; [`Index::make_room`] made room for it.
    pub(super) fn insert(&mut self, id: ObjectId, entry: Entry) {
        self.remove(id);
        self.bytes += entry.bytes;
        self.entries.insert(id, entry);
    }

    /// An object is on disk no more. Whether it was known.
    pub(super) fn remove(&mut self, id: ObjectId) -> bool {
        let removed = self.entries.remove(&id);
        self.bytes -= removed.map_or(0, |entry| entry.bytes);
        removed.is_some()
    }

    /// Of those that were asked for the longest ago, the ones that may not be served any more. They are not in the index
    /// any more.
    pub(super) fn expire(&mut self, now_ms: u64) -> Vec<ObjectId> {
        let mut gone = Vec::new();
        while let Some((&id, _)) = self.entries.front().filter(|(_, entry)| entry.expires_ms <= now_ms) {
            self.remove(id);
            gone.push(id);
        }
        gone
    }

    /// Forgets what was in the index before and has no file any more.
    pub(super) fn retain(&mut self, has_file: impl Fn(ObjectId) -> bool) {
        let bytes = &mut self.bytes;
        self.entries.retain(|&id, entry| {
            let stays = has_file(id);
            *bytes -= if stays { 0 } else { entry.bytes };
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_are_spelled_in_one_way() {
        let id = ObjectId::of("/live/demo/v720/7.m4s");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string(), "70edb73c07f629918bcbb59ff05d6999", "stable over processes and versions");
        for other in ["", "F8", &id.to_string().to_uppercase(), &format!("+{}", &id.to_string()[1..])] {
            assert_eq!(other.parse::<ObjectId>(), Err(NoId), "{other}");
        }
    }

    #[derive(Debug, Clone)]
    enum Act {
        Insert { id: u8, bytes: u64, lives: u64 },
        Find(u8),
        Remove(u8),
        Expire,
        GiveBack(u64),
        Retain(u8),
        Later(u64),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            4 => (0..24u8, 0..60u64, 1..40u64).prop_map(|(id, bytes, lives)| Act::Insert { id, bytes, lives }),
            3 => (0..24u8).prop_map(Act::Find),
            1 => (0..24u8).prop_map(Act::Remove),
            1 => Just(Act::Expire),
            1 => (0..60u64).prop_map(Act::GiveBack),
            1 => (0..24u8).prop_map(Act::Retain),
            1 => (1..20u64).prop_map(Act::Later),
        ]
    }

    /// The same, slowly: a list in the order of use.
    #[derive(Default)]
    struct Model(Vec<(u8, Entry)>);

    impl Model {
        fn bytes(&self) -> u64 {
            self.0.iter().map(|(_, entry)| entry.bytes).sum()
        }

        fn take(&mut self, id: u8) -> Option<Entry> {
            let at = self.0.iter().position(|(other, _)| *other == id)?;
            Some(self.0.remove(at).1)
        }

        fn room(&mut self, bytes: u64) -> Option<Vec<ObjectId>> {
            let mut gone = Vec::new();
            while bytes <= MOST && (self.bytes() + bytes > MOST || self.0.len() >= ENTRIES) {
                gone.push(named(self.0.remove(0).0));
            }
            (bytes <= MOST).then_some(gone)
        }
    }

    const MOST: u64 = 50;
    const ENTRIES: usize = 8;

    fn named(id: u8) -> ObjectId {
        ObjectId(id.into())
    }

    proptest! {
        #[test]
        fn it_is_a_bounded_list_in_the_order_of_use(acts in prop::collection::vec(act(), 0..80)) {
            let (mut index, mut model, mut now) = (Index::new(MOST, ENTRIES), Model::default(), 0);
            for act in acts {
                match act {
                    Act::Insert { id, bytes, lives } => {
                        let entry = Entry { bytes, expires_ms: now + lives };
                        let gone = index.make_room(bytes);
                        prop_assert_eq!(&gone, &model.room(bytes));
                        if gone.is_some() {
                            index.insert(named(id), entry);
                            model.take(id);
                            model.0.push((id, entry));
                        }
                    }
                    Act::Find(id) => {
                        let found = index.find(named(id), now);
                        prop_assert_eq!(index.serves(named(id), now), found == Found::Here);
                        match model.take(id) {
                            Some(entry) if entry.expires_ms > now => {
                                prop_assert_eq!(found, Found::Here);
                                model.0.push((id, entry));
                            }
                            Some(entry) => {
                                prop_assert_eq!(found, Found::Expired);
                                model.0.insert(0, (id, entry));
                            }
                            None => prop_assert_eq!(found, Found::Absent),
                        }
                    }
                    Act::Remove(id) => {
                        prop_assert_eq!(index.remove(named(id)), model.take(id).is_some());
                    }
                    Act::Expire => {
                        let stays = model.0.iter().position(|(_, entry)| entry.expires_ms > now);
                        let gone = model.0.drain(..stays.unwrap_or(model.0.len()));
                        let gone: Vec<_> = gone.map(|(id, _)| named(id)).collect();
                        prop_assert_eq!(index.expire(now), gone);
                    }
                    Act::GiveBack(bytes) => {
                        let (mut gone, mut freed) = (Vec::new(), 0);
                        while freed < bytes && !model.0.is_empty() {
                            let (id, entry) = model.0.remove(0);
                            freed += entry.bytes;
                            gone.push(named(id));
                        }
                        prop_assert_eq!(index.give_back(bytes), gone);
                    }
                    Act::Retain(least) => {
                        index.retain(|id| id.0 >= least.into());
                        model.0.retain(|(id, _)| *id >= least);
                    }
                    Act::Later(by) => now += by,
                }
                prop_assert_eq!(index.bytes(), model.bytes());
                prop_assert_eq!(index.len(), model.0.len());
                prop_assert!(index.bytes() <= MOST && index.len() <= ENTRIES);
                let order: Vec<_> = index.entries.iter().map(|(id, entry)| (*id, *entry)).collect();
                let expected: Vec<_> = model.0.iter().map(|(id, entry)| (named(*id), *entry)).collect();
                prop_assert_eq!(order, expected);
            }
        }
    }
}
