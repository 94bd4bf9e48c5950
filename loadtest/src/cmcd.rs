//! What a viewer says of itself: CMCD (CTA-5004 and CTA-5004-A), in the query or in headers.
//!
//! Invariant: everything said is what the model has; what is said once is said once. Keys in alphabetical order.
#![deny(clippy::disallowed_methods)]

use crate::player::Kind;
use http::{HeaderName, HeaderValue};
use std::fmt::Write;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Object {
    Manifest,
    Media { kind: Kind, audio: bool, muxed: bool, duration_us: u64 },
}

/// What a viewer has to say with one request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct State<'a> {
    pub(crate) content: &'a str,
    pub(crate) session: &'a str,
    /// BANDWIDTH of the variant, bits per second.
    pub(crate) bitrate_bps: Option<u64>,
    pub(crate) top_bitrate_bps: Option<u64>,
    pub(crate) throughput_bps: Option<f64>,
    pub(crate) buffer_us: Option<u64>,
    pub(crate) latency_us: Option<u64>,
    /// The buffer ran empty since the last request, for so long if that is over.
    pub(crate) starved: bool,
    pub(crate) starved_us: Option<u64>,
    /// Said once.
    pub(crate) startup_us: Option<u64>,
    /// Not playing yet, or stalled: the request is urgent.
    pub(crate) urgent: bool,
    pub(crate) playing: bool,
    pub(crate) rate: f64,
    /// Number of the request.
    pub(crate) number: u64,
}

/// To what header a key belongs.
const OBJECT: [&str; 4] = ["br", "d", "ot", "tb"];
const REQUEST: [&str; 6] = ["bl", "ltc", "mtp", "sn", "su", "dl"];
const STATUS: [&str; 2] = ["bs", "bsd"];

impl State<'_> {
    fn pairs(&self, object: Object) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::with_capacity(18);
        let kbps = |bps: u64| bps.div_ceil(1000).to_string();
        let hundreds = |ms: u64| ((ms + 50) / 100 * 100).to_string();
        let media = matches!(object, Object::Media { .. });
        if let (Some(bps), true) = (self.bitrate_bps, media) {
            pairs.push(("br", kbps(bps)));
        }
        if let (Some(us), true) = (self.buffer_us, media) {
            pairs.push(("bl", hundreds(us / 1000)));
        }
        if self.starved {
            pairs.push(("bs", String::new()));
        }
        if let Some(us) = self.starved_us {
            pairs.push(("bsd", (us / 1000).to_string()));
        }
        pairs.push(("cid", format!("\"{}\"", self.content)));
        if let Object::Media { duration_us, .. } = object
            && duration_us > 0
        {
            pairs.push(("d", (duration_us / 1000).to_string()));
        }
        if let Some(us) = self.latency_us {
            pairs.push(("ltc", (us / 1000).to_string()));
        }
        if let Some(us) = self.startup_us {
            pairs.push(("msd", (us / 1000).to_string()));
        }
        if let Some(bps) = self.throughput_bps {
            pairs.push(("mtp", hundreds((bps / 1000.0) as u64)));
        }
        pairs.push(("ot", kind(object).to_owned()));
        if self.rate != 1.0 && self.playing {
            pairs.push(("pr", format!("{:.2}", self.rate)));
        }
        pairs.push(("sf", "h".into()));
        pairs.push(("sid", format!("\"{}\"", self.session)));
        pairs.push(("sn", self.number.to_string()));
        pairs.push(("st", "ll".into()));
        if self.urgent {
            pairs.push(("su", String::new()));
        }
        if let (Some(bps), true) = (self.top_bitrate_bps, media) {
            pairs.push(("tb", kbps(bps)));
        }
        pairs.push(("v", "2".into()));
        pairs.sort_unstable_by_key(|(key, _)| *key);
        pairs
    }

    /// The query parameter, encoded.
    pub(crate) fn query(&self, object: Object) -> String {
        let mut out = String::with_capacity(320);
        out.push_str("CMCD=");
        let mut text = String::with_capacity(240);
        write_pairs(&mut text, self.pairs(object).iter());
        for byte in text.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                out.push(char::from(byte));
            } else {
                // Writing to a `String` cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
        }
        out
    }

    /// The headers.
    pub(crate) fn headers(&self, object: Object) -> Vec<(HeaderName, HeaderValue)> {
        let pairs = self.pairs(object);
        let of = |key: &str| match key {
            key if OBJECT.contains(&key) => 0,
            key if REQUEST.contains(&key) => 1,
            key if STATUS.contains(&key) => 2,
            _ => 3,
        };
        let names = ["cmcd-object", "cmcd-request", "cmcd-status", "cmcd-session"];
        let mut headers = Vec::with_capacity(names.len());
        for (index, name) in names.into_iter().enumerate() {
            let mut text = String::new();
            write_pairs(&mut text, pairs.iter().filter(|(key, _)| of(key) == index));
            if let Ok(value) = HeaderValue::try_from(text)
                && !value.is_empty()
            {
                headers.push((HeaderName::from_static(name), value));
            }
        }
        headers
    }
}

fn write_pairs<'a>(out: &mut String, pairs: impl Iterator<Item = &'a (&'static str, String)>) {
    for (index, (key, value)) in pairs.enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(key);
        if !value.is_empty() {
            out.push('=');
            out.push_str(value);
        }
    }
}

fn kind(object: Object) -> &'static str {
    match object {
        Object::Manifest => "m",
        Object::Media { kind: Kind::Init, .. } => "i",
        Object::Media { audio: true, .. } => "a",
        Object::Media { muxed: true, .. } => "av",
        Object::Media { .. } => "v",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State<'static> {
        State {
            content: "bench",
            session: "0c0d",
            bitrate_bps: Some(1_500_001),
            top_bitrate_bps: Some(3_000_000),
            throughput_bps: Some(4_260_000.0),
            buffer_us: Some(640_000),
            latency_us: Some(1_234_567),
            starved: true,
            starved_us: Some(350_000),
            startup_us: Some(410_000),
            playing: true,
            rate: 1.05,
            number: 7,
            ..State::default()
        }
    }

    const PART: Object = Object::Media { kind: Kind::Part, audio: false, muxed: false, duration_us: 200_000 };

    #[test]
    fn the_query() {
        let query = state().query(PART);
        let plain = query.replace("%3D", "=").replace("%2C", ",").replace("%22", "\"");
        assert_eq!(
            plain,
            "CMCD=bl=600,br=1501,bs,bsd=350,cid=\"bench\",d=200,ltc=1234,msd=410,mtp=4300,ot=v,pr=1.05,sf=h,\
             sid=\"0c0d\",sn=7,st=ll,tb=3000,v=2"
        );
        assert!(!query["CMCD=".len()..].contains(['=', ',', '"']), "encoded");
        assert!(state().query(Object::Manifest).contains("ot%3Dm"));
    }

    #[test]
    fn the_headers() {
        let headers = state().headers(PART);
        let text: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
        assert_eq!(
            text,
            [
                ("cmcd-object", "br=1501,d=200,ot=v,tb=3000"),
                ("cmcd-request", "bl=600,ltc=1234,mtp=4300,sn=7"),
                ("cmcd-status", "bs,bsd=350"),
                ("cmcd-session", "cid=\"bench\",msd=410,pr=1.05,sf=h,sid=\"0c0d\",st=ll,v=2"),
            ]
        );
        let quiet = State { content: "a", session: "b", rate: 1.0, ..State::default() };
        assert_eq!(quiet.headers(Object::Manifest).len(), 3);
    }
}
