//! The report of a POP: its content and its form on the wire.
//!
//! On the wire it is a version byte and the fields in order, as postcard writes them, and then, unless all are 0, the
//! `spoken_ms` of all `quality`: readers who do not know of it leave it, and of writers who do not it is 0. Invariants: what decodes is within
//! its bounds; nothing in a report is relative to another one.

use crate::bounds::check_size;
pub use crate::bounds::{BYTES_MAX, SPANS_MAX};
use crate::histogram::Histogram;
use crate::spans::Span;
use serde::{Deserialize, Serialize};
use sigma_shared::id::{ChannelId, InvalidId, PopId};

/// Where POPs post their reports.
pub const PATH: &str = "/internal/edge/reports";
/// The media type of a report.
pub const MEDIA_TYPE: &str = "application/vnd.sigma-live.report";
/// The header in which a shield says whose report it passes on.
pub const POP_HEADER: &str = "sigma-pop";
const VERSION: u8 = 1;
const CHANNELS_MAX: usize = 65_536;

/// How a viewer's requests came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    /// HTTP/1.1
    H1,
    /// HTTP/2
    H2,
    /// HTTP/3
    H3,
}

impl Protocol {
    /// Its name in the API and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
            Self::H3 => "h3",
        }
    }
}

/// What a POP says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PopDescription {
    /// For people; may be empty.
    pub name: String,
    /// The operator's word for where it is; may be empty.
    pub region: String,
    /// Degrees, -90 to 90 and -180 to 180.
    pub coordinates: Option<(f64, f64)>,
    /// Viewers it is meant for, 0 when not said.
    pub capacity_viewers: u32,
    /// Of its software.
    pub version: String,
    /// Connections open at the moment.
    pub connections: u32,
}

/// What is reported at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The reporting process: another number after every start, greater than the ones before.
    pub incarnation: u64,
    /// 1, 2, 3 … in the order in which the reports of this incarnation were made.
    pub sequence: u64,
    /// The POP's wall clock when it was made, Unix milliseconds.
    pub made_at_ms: u64,
    /// With this report and those of lower sequence numbers, everything is said of the time before this.
    pub complete_until_ms: u64,
    /// Who reports.
    pub pop: PopDescription,
    /// The channels that are spoken of, by index.
    pub channels: Vec<String>,
    /// What is new of sessions.
    pub sessions: Vec<SessionReport>,
    /// What went out, by seconds.
    pub traffic: Vec<TrafficReport>,
    /// What players said, by minutes.
    pub quality: Vec<QualityReport>,
}

/// What is new of one session over one protocol. Everything in it may have been reported before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReport {
    /// The session's id.
    pub session: [u8; 16],
    /// A hash of who watches: the token's subject, or else address prefix and user agent. 0: not known.
    pub viewer: u64,
    /// Index into the report's channels.
    pub channel: u32,
    /// How it came.
    pub protocol: Protocol,
    /// Stretches of the media timeline that were delivered, Unix microseconds of program date and time.
    pub watched: Vec<Span>,
    /// When it was present: from its first media byte to its last completed media or playlist response, or to now while a
    /// request of it is held. Unix milliseconds, without the grace at the end.
    pub present: Vec<Span>,
}

/// What went out on a channel over a protocol in one second; all of it, in the end: a later report of the same second
/// says at least as much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficReport {
    /// Index into the report's channels.
    pub channel: u32,
    /// How.
    pub protocol: Protocol,
    /// Unix seconds.
    pub second: u64,
    /// Of bodies.
    pub bytes: u64,
    /// Requests that ended.
    pub requests: u64,
}

/// What players said (CMCD) on a channel in one minute; all of it, in the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QualityReport {
    /// Index into the report's channels.
    pub channel: u32,
    /// Unix minutes.
    pub minute: u64,
    /// Times that a buffer ran empty (`bs`).
    pub starvations: u64,
    /// How long that took, where players say so (`bsd`).
    pub starved_ms: u64,
    /// How long the players that speak were there when they spoke, milliseconds: what `starved_ms` is a part of. 0: the POP does
    /// not know.
    #[serde(skip)]
    pub spoken_ms: u64,
    /// From the press of play to the first picture, milliseconds (`msd`).
    pub startup_ms: Histogram,
    /// How far behind live players are, milliseconds (`ltc`).
    pub latency_ms: Histogram,
    /// Measured throughput, kbit/s (`mtp`).
    pub throughput_kbps: Histogram,
}

/// Why bytes are no report. The POP's fault, or its version's; sending it again does not help.
#[derive(Debug, thiserror::Error)]
pub enum InvalidReport {
    /// Another form.
    #[error("the report has version {0}, known here is {VERSION}")]
    Version(u8),
    /// Not the fields in order.
    #[error("the report cannot be read: {0}")]
    Form(#[from] postcard::Error),
    /// A value out of its range.
    #[error("the report's {0} is out of range")]
    Range(&'static str),
    /// More than is taken at once.
    #[error("the report has {value} {field}; at most {bound} are taken at once")]
    TooMany {
        /// Of what.
        field: &'static str,
        /// How many.
        value: u64,
        /// The most.
        bound: u64,
    },
    /// A number that is greater than any that can be true.
    #[error("the report's {field} is {value}; at most {bound} is taken")]
    Beyond {
        /// Which.
        field: &'static str,
        /// What it is.
        value: u64,
        /// The greatest.
        bound: u64,
    },
    /// A moment in the future.
    #[error(
        "the report's {field} is {value}; at most {bound} is taken, in Unix milliseconds: the POP's clock is ahead, or was when \
         the POP started (the folders in its reports.spool_dir are named by that; one with a wrong name has to be removed), or \
         this clock is behind"
    )]
    Ahead {
        /// Which.
        field: &'static str,
        /// Unix milliseconds.
        value: u64,
        /// The latest.
        bound: u64,
    },
    /// A moment long ago.
    #[error(
        "the report's {field} is {value}; at least {bound} is taken, in Unix milliseconds: the POP's clock is behind, or this \
         one is ahead"
    )]
    Behind {
        /// Which.
        field: &'static str,
        /// Unix milliseconds.
        value: u64,
        /// The earliest.
        bound: u64,
    },
    /// A channel that cannot be one.
    #[error(transparent)]
    Channel(#[from] InvalidId),
}

impl Report {
    /// As bytes.
    ///
    /// # Errors
    /// Never for values of these types; the format's own type of error.
    pub fn encode(&self) -> Result<Vec<u8>, InvalidReport> {
        let bytes = postcard::to_extend(self, vec![VERSION])?;
        let spoken: Vec<u64> = self.quality.iter().map(|quality| quality.spoken_ms).collect();
        let is_known = spoken.iter().any(|ms| *ms > 0);
        Ok(if is_known { postcard::to_extend(&spoken, bytes)? } else { bytes })
    }

    /// From bytes that somebody else sent, checked against the [bounds](crate::bounds).
    ///
    /// # Errors
    /// Another version, fields that are missing or out of range, or more than is taken at once.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidReport> {
        let report = Self::read(bytes)?;
        check_size(&report)?;
        Ok(report)
    }

    /// From bytes that this side has kept, however much they say.
    ///
    /// # Errors
    /// Another version, or fields that are missing or out of range.
    pub fn read(bytes: &[u8]) -> Result<Self, InvalidReport> {
        let (version, fields) = bytes.split_first().ok_or(InvalidReport::Range("length"))?;
        if *version != VERSION {
            return Err(InvalidReport::Version(*version));
        }
        let (mut report, rest): (Self, _) = postcard::take_from_bytes(fields)?;
        if !rest.is_empty() {
            let spoken: Vec<u64> = postcard::from_bytes(rest)?;
            if spoken.len() != report.quality.len() {
                return Err(InvalidReport::Range("time that players spoke"));
            }
            report.quality.iter_mut().zip(spoken).for_each(|(quality, ms)| quality.spoken_ms = ms);
        }
        report.check()?;
        Ok(report)
    }

    /// The channels, as ids.
    ///
    /// # Errors
    /// One of them is none.
    pub fn channel_ids(&self) -> Result<Vec<ChannelId>, InvalidReport> {
        self.channels.iter().map(|channel| Ok(channel.parse()?)).collect()
    }

    fn check(&self) -> Result<(), InvalidReport> {
        let within = |holds: bool, field| if holds { Ok(()) } else { Err(InvalidReport::Range(field)) };
        within(self.incarnation > 0 && self.sequence > 0, "incarnation or sequence")?;
        within(self.channels.len() <= CHANNELS_MAX, "number of channels")?;
        self.channel_ids()?;
        let pop = &self.pop;
        let texts = [&pop.name, &pop.region, &pop.version];
        within(
            texts.iter().all(|text| text.len() <= 128 && !text.contains(char::is_control)),
            "description",
        )?;
        let on_earth = |(latitude, longitude): (f64, f64)| latitude.abs() <= 90.0 && longitude.abs() <= 180.0;
        within(pop.coordinates.is_none_or(on_earth), "coordinates")?;
        let is_channel = |index: u32| (index as usize) < self.channels.len();
        let spans = |spans: &[Span]| spans.iter().all(|span| span.start < span.end);
        for session in &self.sessions {
            within(is_channel(session.channel), "session's channel")?;
            within(spans(&session.watched) && spans(&session.present), "session's spans")?;
        }
        within(self.traffic.iter().all(|traffic| is_channel(traffic.channel)), "traffic's channel")?;
        for quality in &self.quality {
            within(is_channel(quality.channel), "quality's channel")?;
            let histograms = [&quality.startup_ms, &quality.latency_ms, &quality.throughput_kbps];
            within(histograms.iter().all(|histogram| histogram.is_valid()), "quality's histogram")?;
        }
        Ok(())
    }
}

/// Which POP a report is of: the one whose certificate the connection showed, or the one that it passes a report on for.
///
/// # Errors
/// The header names no POP.
pub fn reporter(client: &str, header: Option<&str>) -> Result<PopId, InvalidId> {
    header.unwrap_or(client).parse()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn report() -> Report {
        let mut latency_ms = Histogram::default();
        latency_ms.record(1200);
        Report {
            incarnation: 1_790_000_000_000,
            sequence: 7,
            made_at_ms: 1_790_000_007_000,
            complete_until_ms: 1_790_000_006_900,
            pop: PopDescription {
                name: "Frankfurt 1".to_owned(),
                region: "eu".to_owned(),
                coordinates: Some((50.1, 8.7)),
                capacity_viewers: 3000,
                version: "0.1.0".to_owned(),
                connections: 2,
            },
            channels: vec!["demo".to_owned()],
            sessions: vec![SessionReport {
                session: [7; 16],
                viewer: 9,
                channel: 0,
                protocol: Protocol::H2,
                watched: vec![Span { start: 1_790_000_000_000_000, end: 1_790_000_000_200_000 }],
                present: vec![Span { start: 1_790_000_000_000, end: 1_790_000_000_500 }],
            }],
            traffic: vec![TrafficReport {
                channel: 0,
                protocol: Protocol::H2,
                second: 1_790_000_000,
                bytes: 60_000,
                requests: 3,
            }],
            quality: vec![QualityReport { channel: 0, minute: 29_833_333, latency_ms, ..Default::default() }],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = report().encode().unwrap();
        assert_eq!(Report::decode(&bytes).unwrap(), report());
        let one_more = Report { sessions: vec![report().sessions[0].clone(); 101], ..report() };
        let per_session = (one_more.encode().unwrap().len() - bytes.len()) / 100;
        assert!(per_session <= 64, "{per_session} bytes a session");
    }

    #[test]
    fn what_older_ones_do_not_know_is_behind_what_they_read() {
        let mut newer = report();
        newer.quality.push(QualityReport { minute: 29_833_334, ..Default::default() });
        let known = newer.encode().unwrap();
        newer.quality[1].spoken_ms = 60_000;
        let bytes = newer.encode().unwrap();
        assert_eq!(Report::decode(&bytes).unwrap(), newer);
        assert!(bytes.starts_with(&known) && bytes.len() > known.len(), "as it was before, and more");
        let one_less = postcard::to_extend(&[1u64][..], known).unwrap();
        assert!(Report::decode(&one_less).unwrap_err().to_string().contains("players spoke"));
        assert!(Report::decode(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let refused = |change: fn(&mut Report)| {
            let mut report = report();
            change(&mut report);
            Report::decode(&report.encode().unwrap()).unwrap_err().to_string()
        };
        for (change, named) in [
            ((|r| r.sequence = 0) as fn(&mut Report), "sequence"),
            (|r| r.channels[0] = "../x".to_owned(), "../x"),
            (|r| r.sessions[0].channel = 1, "session's channel"),
            (|r| r.sessions[0].watched[0].end = 0, "session's spans"),
            (|r| r.traffic[0].channel = 1, "traffic's channel"),
            (|r| r.quality[0].channel = 1, "quality's channel"),
            (|r| r.pop.coordinates = Some((91.0, 0.0)), "coordinates"),
            (|r| r.pop.coordinates = Some((f64::NAN, 0.0)), "coordinates"),
            (|r| r.pop.name = "a\nb".to_owned(), "description"),
        ] {
            assert!(refused(change).contains(named), "{}", refused(change));
        }
        assert!(matches!(Report::decode(&[9]), Err(InvalidReport::Version(9))));
        assert!(Report::decode(&[]).is_err());
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..200) {
            let _ = Report::decode(&bytes);
            let whole = report().encode().unwrap();
            let cut = cut % whole.len();
            prop_assert!(Report::decode(&whole[..cut]).is_err());
        }
    }
}
