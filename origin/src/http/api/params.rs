//! What a request asks for behind the question mark: read one by one, and nothing may be left over.

use http::StatusCode;
use sigma_http::problem::Problem;
use std::collections::BTreeMap;

/// Items of a list, unless asked otherwise.
const LIMIT: u64 = 100;
/// The most items of a list at once.
const LIMIT_MAX: u64 = 1000;

/// The parameters that nobody has asked for yet.
pub(super) struct Params(BTreeMap<String, String>);

/// The answer to a parameter that is wrong.
pub(super) fn wrong(name: &str, value: &str, allowed: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, format!("{name}: {value}: {allowed}"))
}

impl Params {
    pub(super) fn parse(query: &str) -> Result<Self, Problem> {
        let mut params = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (decoded(name), decoded(value)) else {
                return Err(wrong(name, value, "percent-encoded UTF-8 is expected"));
            };
            if params.insert(name.clone(), value.clone()).is_some() {
                return Err(wrong(&name, &value, "is there twice"));
            }
        }
        Ok(Self(params))
    }

    /// A parameter, if it is there.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// A moment in Unix milliseconds, from RFC 3339.
    pub(super) fn moment(&mut self, name: &str) -> Result<Option<u64>, Problem> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let parsed: Option<jiff::Timestamp> = value.parse().ok();
        match parsed.and_then(|date| u64::try_from(date.as_millisecond()).ok()) {
            Some(ms) => Ok(Some(ms)),
            None => Err(wrong(name, &value, "RFC 3339 such as 2026-11-22T20:00:00Z is expected")),
        }
    }

    /// How many items of a list.
    pub(super) fn limit(&mut self) -> Result<u64, Problem> {
        let Some(value) = self.take("limit") else { return Ok(LIMIT) };
        let limit = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
        limit.ok_or_else(|| wrong("limit", &value, "1 to 1000 is expected"))
    }

    /// Refuses what nobody asked for.
    pub(super) fn finish(self) -> Result<(), Problem> {
        match self.0.into_iter().next() {
            Some((name, value)) => Err(wrong(&name, &value, "there is no such parameter here")),
            None => Ok(()),
        }
    }
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (high, low) = (rest.next().and_then(digit)?, rest.next().and_then(digit)?);
        bytes.push(high * 16 + low);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        let named = |query: &str, named: &str| {
            let tried = Params::parse(query).and_then(|mut params| {
                params.limit()?;
                params.moment("from")?;
                params.finish()
            });
            let problem = tried.expect_err(query);
            assert_eq!(problem.status, StatusCode::BAD_REQUEST);
            assert!(problem.detail.contains(named), "{query}: {}", problem.detail);
        };
        named("limit=0", "limit: 0");
        named("limit=1001", "limit: 1001");
        named("from=yesterday", "from: yesterday");
        named("form=1", "form: 1");
        named("limit=1&limit=2", "twice");
        named("from=%zz", "from: %zz");
    }

    #[test]
    fn what_is_right_is_read() {
        let mut params = Params::parse("from=2026-11-22T20%3A00:00.5%2B01:00&limit=7").expect("read");
        assert_eq!(params.moment("from").expect("read"), Some(1_795_374_000_500));
        assert_eq!((params.limit().expect("read"), params.take("cursor")), (7, None));
        params.finish().expect("nothing left");
    }
}
