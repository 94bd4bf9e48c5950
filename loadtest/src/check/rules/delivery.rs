//! DL: how responses are delivered: protocol, compression, caching, CORS, types.
#![deny(clippy::disallowed_methods)]

use crate::check::catalog::Rule;
use crate::check::exchange::{Answer, Exchange, Handshake};
use crate::check::ledger::{Evidence, Ledger};
use crate::check::record::{Object, Rendition, Role, Unit, View};
use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;

/// Largest playlist after decompression, in bytes.
const UNZIPPED_MAX: u64 = 64 << 20;

/// What a response is, for its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Multivariant,
    Playlist { blocking: bool },
    Media,
}

/// What is kept of all responses.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    /// Seen with `Age`, and without.
    ages: (u64, u64),
    /// Largest urgency number seen, by rendition.
    urgencies: BTreeMap<usize, u8>,
}

fn target(exchange: &Exchange, said: String) -> Evidence {
    Evidence::of(exchange.ask.to_string(), said)
}

impl Delivery {
    /// Any playlist or media response, with the target duration (zero if unknown).
    pub(crate) fn see(&mut self, kind: Kind, exchange: &Exchange, td: Duration, ledger: &mut Ledger) {
        let Ok(answer) = &exchange.outcome else { return };
        cors(exchange, answer, ledger);
        let redirect = (300..400).contains(&answer.status);
        if kind != Kind::Multivariant {
            ledger
                .judge(Rule::Dl12, !redirect, || target(exchange, format!("redirected: {}", answer.status)));
            lifetime(kind, exchange, td.as_secs(), ledger);
        }
        if answer.status != 200 {
            return;
        }
        priority(kind, exchange, answer, ledger);
        if let Some(age) = answer.header("age") {
            let fine = crate::check::attributes::integer(age).is_some();
            ledger.judge(Rule::Dl04, fine, || target(exchange, format!("Age: {age}")));
            self.ages.0 += 1;
        } else {
            self.ages.1 += 1;
        }
    }

    /// A media object of a rendition.
    pub(crate) fn object(&mut self, object: &Object, td: Duration, ledger: &mut Ledger) {
        self.see(Kind::Media, &object.exchange, td, ledger);
        let Some(answer) = object.exchange.ok() else { return };
        if let Some(urgency) = urgency(answer).filter(|_| object.unit != Unit::Init) {
            let most = self.urgencies.entry(object.rendition).or_insert(urgency);
            *most = (*most).max(urgency);
        }
        let kind = answer.header("content-type").unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let known = [
            "video/iso.segment",
            "video/mp4",
            "audio/mp4",
            "audio/iso.segment",
            "application/mp4",
            "video/mp2t",
        ];
        ledger.judge(Rule::Dl13, known.contains(&kind.as_str()), || {
            target(&object.exchange, format!("Content-Type: {kind}"))
        });
        let planned = answer.header("cache-control").is_some() || answer.header("expires").is_some();
        ledger.judge(Rule::Dl07, planned, || {
            target(&object.exchange, "neither Cache-Control nor Expires".to_owned())
        });
    }

    /// At the end: urgencies against bit rates, and Age.
    pub(crate) fn finish(&self, renditions: &[Rendition], ledger: &mut Ledger) {
        for (a, urgency) in &self.urgencies {
            for (b, other) in &self.urgencies {
                let (high, low) = (&renditions[*a], &renditions[*b]);
                let variants = high.role == Role::Variant && low.role == Role::Variant;
                if variants && low.bandwidth > 0 && high.bandwidth > low.bandwidth {
                    ledger.judge(Rule::Dl02, urgency >= other, || {
                        let said = format!(
                            "u={urgency} at {} bit/s, u={other} at {} bit/s ({})",
                            high.bandwidth, low.bandwidth, low.name
                        );
                        Evidence::of(high.name.clone(), said)
                    });
                }
            }
        }
        match self.ages {
            (0, 0) => ledger.skip(Rule::Dl04, "no response was seen"),
            (0, _) => {
                ledger.pass(Rule::Dl04);
                ledger
                    .note(Rule::Dl04, "no response had Age: this is an origin, or a cache that states none");
            }
            (_, 0) => ledger.pass(Rule::Dl04),
            // Fresh from the origin there is no Age, out of the cache there is.
            (with, without) => {
                ledger.pass(Rule::Dl04);
                ledger.note(Rule::Dl04, format!("Age in {with} of {} responses", with + without));
            }
        }
    }
}

fn cors(exchange: &Exchange, answer: &Answer, ledger: &mut Ledger) {
    let origin = answer.header("access-control-allow-origin");
    let allowed = origin.is_some_and(|origin| origin == "*" || origin.starts_with("http"));
    if answer.status >= 400 {
        return ledger.judge(Rule::Dl11, allowed, || {
            target(exchange, format!("{} without CORS headers", answer.status))
        });
    }
    ledger.judge(Rule::Dl09, allowed, || target(exchange, "no Access-Control-Allow-Origin".to_owned()));
    let exposed = answer.header("access-control-expose-headers").unwrap_or_default().to_ascii_lowercase();
    let names: Vec<&str> = exposed.split(',').map(str::trim).collect();
    let fine = names.contains(&"*") || names.contains(&"age") && names.contains(&"date");
    ledger.judge(Rule::Dl09, fine, || target(exchange, format!("Access-Control-Expose-Headers: {exposed}")));
    let timing = answer.header("timing-allow-origin");
    ledger.judge(Rule::Dl10, timing == Some("*"), || {
        target(exchange, format!("Timing-Allow-Origin: {timing:?}"))
    });
}

fn urgency(answer: &Answer) -> Option<u8> {
    answer.header("priority")?.split(',').find_map(|item| item.trim().strip_prefix("u=")?.parse().ok())
}

fn priority(kind: Kind, exchange: &Exchange, answer: &Answer, ledger: &mut Ledger) {
    let stated = urgency(answer);
    let fine = match kind {
        Kind::Multivariant | Kind::Playlist { .. } => stated == Some(1),
        Kind::Media => stated.is_some_and(|u| (2..=6).contains(&u)),
    };
    ledger.judge(Rule::Dl02, fine, || target(exchange, format!("Priority: {:?}", answer.header("priority"))));
}

fn lifetime(kind: Kind, exchange: &Exchange, td: u64, ledger: &mut Ledger) {
    let Ok(answer) = &exchange.outcome else { return };
    if td == 0 {
        return;
    }
    let due = match (kind, answer.status) {
        (Kind::Playlist { blocking: true } | Kind::Media, 200 | 206) => 6 * td,
        (Kind::Playlist { blocking: true }, 400..) => 4 * td,
        (Kind::Playlist { blocking: false }, 200) => td / 2,
        (_, 400..) => td,
        _ => return,
    };
    let stated = answer.cache_seconds("max-age");
    ledger.judge(Rule::Dl06, stated == Some(due), || {
        let said = format!(
            "{}: Cache-Control: {:?}, max-age={due} is recommended",
            answer.status,
            answer.header("cache-control")
        );
        target(exchange, said)
    });
}

/// What TLS agreed on.
pub(crate) fn handshake(agreed: Option<&Result<Handshake, String>>, request: &str, ledger: &mut Ledger) {
    let rules = [Rule::Dl01, Rule::Dl08, Rule::Dl14];
    match agreed {
        None => rules.into_iter().for_each(|rule| ledger.skip(rule, "the URL is not https")),
        Some(Err(error)) => {
            rules.into_iter().for_each(|rule| ledger.fail(rule, Evidence::of(request, error.clone())));
        }
        Some(Ok(agreed)) => {
            let said = || {
                Evidence::of(
                    request,
                    format!("ALPN \"{}\", {}, {}", agreed.alpn, agreed.version, agreed.suite),
                )
            };
            ledger.judge(Rule::Dl01, agreed.alpn == "h2" || agreed.alpn == "h3", said);
            ledger.judge(Rule::Dl08, agreed.version == "TLSv1_3", said);
            let secret =
                agreed.version == "TLSv1_3" || agreed.suite.contains("ECDHE") || agreed.suite.contains("DHE");
            ledger.judge(Rule::Dl14, secret, said);
        }
    }
}

/// The same playlist plain and gzipped.
pub(crate) fn gzip(exchanges: &[Exchange], ledger: &mut Ledger) {
    let [plain, zipped] = exchanges else { return };
    let (Some(plain), Some(answer)) = (plain.ok(), zipped.ok()) else {
        return ledger.fail(Rule::Dl03, target(zipped, format!("{} ({})", zipped.said(), plain.said())));
    };
    let vary = answer.header("vary").unwrap_or_default().to_ascii_lowercase();
    ledger.judge(Rule::Dl03Ours, vary.contains("accept-encoding") || vary == "*", || {
        target(zipped, format!("Vary: {vary}"))
    });
    let is_zipped = answer.header("content-encoding") == Some("gzip");
    ledger.judge(Rule::Dl03, is_zipped, || target(zipped, "no Content-Encoding: gzip".to_owned()));
    if is_zipped {
        let mut text = Vec::new();
        let read = flate2::read::GzDecoder::new(&answer.body[..]).take(UNZIPPED_MAX).read_to_end(&mut text);
        ledger.judge(Rule::Dl03Ours, read.is_ok() && text == plain.body, || {
            target(zipped, "what is in it is not the plain playlist".to_owned())
        });
    }
}

/// The answer to a preflight request.
pub(crate) fn preflight(exchange: &Exchange, ledger: &mut Ledger) {
    let Ok(answer) = &exchange.outcome else {
        return ledger.fail(Rule::Dl09, target(exchange, exchange.said()));
    };
    let header = |name: &str| answer.header(name).unwrap_or_default().to_ascii_lowercase();
    let allowed = header("access-control-allow-headers");
    let fine = (200..300).contains(&answer.status)
        && !header("access-control-allow-origin").is_empty()
        && (allowed.contains("range") || allowed.contains('*'))
        && header("access-control-max-age").parse::<u64>().is_ok_and(|age| age >= 600);
    ledger.judge(Rule::Dl09, fine, || {
        let said = format!(
            "{}, Allow-Headers \"{allowed}\", Max-Age \"{}\"",
            answer.status,
            header("access-control-max-age")
        );
        target(exchange, said)
    });
}

/// A media URI that does not exist.
pub(crate) fn unknown(exchange: &Exchange, ledger: &mut Ledger) {
    ledger.judge(Rule::Ph06, exchange.with_status(404).is_some(), || target(exchange, exchange.said()));
}

/// A range request, where byte ranges are used.
pub(crate) fn range(view: &View, exchanges: &[Exchange], ledger: &mut Ledger) {
    let used = view.media.sheet.lines.iter().any(|line| line.contains("BYTERANGE"));
    for exchange in exchanges {
        let Ok(answer) = &exchange.outcome else { continue };
        if used {
            ledger.judge(Rule::Dl05, answer.status == 206, || target(exchange, exchange.said()));
            ledger.judge(Rule::Ph07, answer.status == 206, || target(exchange, exchange.said()));
        }
    }
    if !used {
        ledger.skip(Rule::Dl05, "no BYTERANGE is used");
        ledger.skip(Rule::Ph07, "no hint has a byte range");
    }
}
