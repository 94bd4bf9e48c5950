//! CMCD (CTA-5004, versions 1 and 2): what players say of themselves with their requests, in the query or in headers.
//!
//! Only what quality is measured by is read. Invariants: tolerant (what cannot be read is as if it were not there), bounded
//! (of longer text the beginning counts), nothing is allocated; nobody is identified by it. Deliberately absent: `sid`, as
//! sessions are known by their signed path.

use std::str;

/// The most bytes that are read of the query's CMCD, or of one header.
pub const BYTES_MAX: usize = 2048;
/// The headers it may come in, in the lower case of HTTP/2.
pub const HEADERS: [&str; 4] = ["cmcd-request", "cmcd-object", "cmcd-status", "cmcd-session"];
/// A delay or duration above a day is no measurement.
const MS_MAX: u32 = 86_400_000;
/// Terabits per second are none either.
const KBPS_MAX: u32 = 1_000_000_000;

/// What a request says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cmcd {
    /// `bs`: the buffer ran empty since the last request.
    pub starved: bool,
    /// `bsd`: for how long, milliseconds.
    pub starved_ms: Option<u32>,
    /// `msd`: from the wish to play to playing, milliseconds.
    pub startup_ms: Option<u32>,
    /// `ltc`: behind live, milliseconds.
    pub latency_ms: Option<u32>,
    /// `mtp`: measured throughput, kbit/s.
    pub throughput_kbps: Option<u32>,
}

impl Cmcd {
    /// What the query says, if it has CMCD; that may be nothing of what is read here.
    #[must_use]
    pub fn of_query(query: &str) -> Option<Self> {
        let mut said = Self::default();
        let encoded = query.split('&').find_map(|pair| pair.strip_prefix("CMCD="))?;
        let mut decoded = [0; BYTES_MAX];
        said.read(percent_decoded(encoded, &mut decoded));
        Some(said)
    }

    /// Adds what one of [`HEADERS`] says.
    pub fn read(&mut self, text: &[u8]) {
        let mut rest = &text[..text.len().min(BYTES_MAX)];
        while !rest.is_empty() {
            let (pair, after) = rest.split_at(pair_end(rest));
            self.take(pair.trim_ascii());
            rest = after.get(1..).unwrap_or_default();
        }
    }

    fn take(&mut self, pair: &[u8]) {
        let equals = pair.iter().position(|byte| *byte == b'=');
        let (key, value) = match equals {
            Some(at) => (&pair[..at], Some(&pair[at + 1..])),
            None => (pair, None),
        };
        let ms = |value| number(value).filter(|ms| *ms <= MS_MAX);
        match (key, value) {
            // A key alone is true, in version 2 also written out.
            (b"bs", None | Some(b"true" | b"?1")) => self.starved = true,
            (b"bsd", Some(value)) => self.starved_ms = ms(value).or(self.starved_ms),
            (b"msd", Some(value)) => self.startup_ms = ms(value).or(self.startup_ms),
            (b"ltc", Some(value)) => self.latency_ms = ms(value).or(self.latency_ms),
            (b"mtp", Some(value)) => {
                let said = number(value).filter(|kbps| *kbps <= KBPS_MAX);
                self.throughput_kbps = said.or(self.throughput_kbps);
            }
            _ => {}
        }
    }
}

/// Where the first pair ends: at a comma that is in no string.
fn pair_end(text: &[u8]) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return at,
            _ => {}
        }
    }
    text.len()
}

/// An integer, or the first of a list of version 2: `(25400;v 128;a)`. Of a decimal the whole part.
fn number(value: &[u8]) -> Option<u32> {
    let value = value.strip_prefix(b"(").unwrap_or(value);
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let ended = matches!(value.get(digits), None | Some(b')' | b';' | b' ' | b'.'));
    str::from_utf8(&value[..digits]).ok()?.parse().ok().filter(|_| ended)
}

fn percent_decoded<'a>(text: &str, into: &'a mut [u8; BYTES_MAX]) -> &'a [u8] {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    let mut bytes = text.bytes();
    let mut length = 0;
    while let (Some(byte), Some(place)) = (bytes.next(), into.get_mut(length)) {
        let mut ahead = bytes.clone();
        let escaped = match byte {
            b'%' => digit(ahead.next()).zip(digit(ahead.next())),
            _ => None,
        };
        *place = match escaped {
            Some((high, low)) => {
                bytes = ahead;
                u8::try_from(high * 16 + low).unwrap_or(byte)
            }
            None => byte,
        };
        length += 1;
    }
    &into[..length]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Cmcd {
        let mut said = Cmcd::default();
        said.read(text.as_bytes());
        said
    }

    #[test]
    fn what_players_say() {
        let nothing = Cmcd::default();
        let throughput = |kbps| Cmcd { throughput_kbps: Some(kbps), ..nothing };
        for (text, expected) in [
            ("", nothing),
            ("bl=21300,br=3200,bs,d=4004,mtp=25400", Cmcd { starved: true, ..throughput(25_400) }),
            ("sid=\"a,bs,mtp=1\",mtp=100", throughput(100)),
            ("sid=\"a\\\",bs\",mtp=100", throughput(100)),
            ("bs=false, mtp=(25400;v 900;a)", throughput(25_400)),
            ("mtp=25400.7", throughput(25_400)),
            ("mtp=-1,ltc=9999999999,msd=86400001,bsd=x,mtp=1x", nothing),
            (
                "bs=?1,bsd=1200,ltc=900,msd=450,v=2",
                Cmcd {
                    starved: true,
                    starved_ms: Some(1200),
                    latency_ms: Some(900),
                    startup_ms: Some(450),
                    ..nothing
                },
            ),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn in_the_query() {
        let said = Cmcd::of_query("_HLS_msn=7&CMCD=bs%2Cmtp%3D25400%2Csid%3D%22x%2Cltc%3D1%22&token=1");
        assert_eq!(said, Some(Cmcd { starved: true, throughput_kbps: Some(25_400), ..Cmcd::default() }));
        assert_eq!(Cmcd::of_query("XCMCD=bs&cmcd=bs"), None);
        assert_eq!(Cmcd::of_query("CMCD=%b%&mtp=1"), Some(Cmcd::default()));
    }

    proptest! {
        #[test]
        fn anything_is_read_without_a_panic(text in "\\PC{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            let _ = Cmcd::of_query(&format!("CMCD={text}"));
            read(&text);
            Cmcd::default().read(&bytes);
        }

        #[test]
        fn the_query_says_what_the_header_says(kbps in 0..KBPS_MAX, ltc in 0..MS_MAX, bs: bool, noise in "[a-z]{1,4}=[0-9]{1,6}") {
            let text = format!("{noise},{}mtp={kbps},ltc={ltc}", if bs { "bs," } else { "" });
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(Cmcd::of_query(&format!("CMCD={encoded}")), Some(read(&text)));
            prop_assert_eq!(read(&text).latency_ms, Some(ltc));
        }
    }
}
