//! ISO BMFF boxes as they lie in a file: enough to walk them, whatever is inside.
//!
//! Invariants: no box reaches beyond the one around it; nothing panics. Read here by hand rather than with the library
//! that the servers of this project write with, so that a fault in it does not go unseen.
#![deny(clippy::disallowed_methods)]

/// One box.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Atom<'a> {
    pub(crate) kind: [u8; 4],
    /// Of its header, from the start of what was walked.
    pub(crate) start: usize,
    /// Behind its header.
    pub(crate) payload: &'a [u8],
    /// Of the payload, from the start of what was walked.
    pub(crate) at: usize,
}

/// The boxes in `bytes`, one after the other.
pub(crate) fn atoms(bytes: &[u8]) -> Result<Vec<Atom<'_>>, String> {
    let mut found = Vec::new();
    let mut start = 0;
    while start < bytes.len() {
        let rest = &bytes[start..];
        let short = || format!("a box at byte {start} is cut short");
        let (size, kind) = (u32_at(rest, 0).ok_or_else(short)?, rest.get(4..8).ok_or_else(short)?);
        let (header, size) = match size {
            0 => (8, rest.len()),
            1 => {
                let large = u64::from(u32_at(rest, 8).ok_or_else(short)?) << 32
                    | u64::from(u32_at(rest, 12).ok_or_else(short)?);
                (16, usize::try_from(large).map_err(|_| short())?)
            }
            size => (8, size as usize),
        };
        let payload = rest.get(header..size).ok_or_else(short)?;
        let kind = [kind[0], kind[1], kind[2], kind[3]];
        found.push(Atom { kind, start, payload, at: start + header });
        start += size;
    }
    Ok(found)
}

/// The first box of a kind among those in `bytes`; a fault in what follows it does not matter.
pub(crate) fn child<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    atoms(bytes).ok()?.into_iter().find(|atom| atom.kind == *kind).map(|atom| atom.payload)
}

/// Follows a path of boxes.
pub(crate) fn descend<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    path.iter().try_fold(bytes, |inside, kind| child(inside, kind))
}

/// A big-endian integer of two bytes.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A big-endian integer of four bytes.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A big-endian integer of eight bytes.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The name of a kind, for people.
pub(crate) fn name(kind: [u8; 4]) -> String {
    kind.iter().map(|b| if b.is_ascii_graphic() { char::from(*b) } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fragment::Fragment;
    use crate::check::init::Init;
    use proptest::prelude::*;

    #[test]
    fn boxes_in_boxes() {
        let bytes = b"\0\0\0\x18moov\0\0\0\x10mvhd\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\x08free";
        let top = atoms(bytes).unwrap();
        assert_eq!(top.iter().map(|atom| name(atom.kind)).collect::<Vec<_>>(), ["moov", "free"]);
        assert_eq!(descend(bytes, &[b"moov", b"mvhd"]).and_then(|b| u32_at(b, 4)), Some(0x0506_0708));
        assert!(descend(bytes, &[b"moov", b"trak"]).is_none());
        assert!(atoms(&bytes[..20]).is_err(), "cut short");
        let large = b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x12ab\0\0\0\0free";
        assert_eq!(atoms(large).unwrap()[0].payload, b"ab");
        assert_eq!(atoms(large).unwrap().len(), 2, "a size of 0 reaches to the end");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Init::read(&bytes);
            let _ = Fragment::read(&bytes, &Init::default());
        }

        #[test]
        fn any_mutation_is_read_or_refused(at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
            use crate::check::fake::clip;
            let mut init = clip::init(true, clip::HEAD);
            let mut part = clip::part(true, 4, 1, &clip::Tweak::default());
            let read = Init::read(&init).unwrap();
            part[at.index(400)] = byte;
            let _ = Fragment::read(&part, &read);
            let place = at.index(init.len());
            init[place] = byte;
            let _ = Init::read(&init);
        }
    }
}
