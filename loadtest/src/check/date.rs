//! ISO 8601 dates and times, as EXT-X-PROGRAM-DATE-TIME and EXT-X-DATERANGE write them, and dates of HTTP headers.
#![deny(clippy::disallowed_methods)]

/// A moment, and how exactly it was stated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DateTime {
    /// Microseconds since the Unix epoch; taken as UTC if no zone was stated.
    pub(crate) unix_us: i64,
    /// A zone, and milliseconds or finer.
    pub(crate) exact: bool,
}

/// Reads `YYYY-MM-DDThh:mm[:ss[.fff]][Z|±hh[:mm]]`; `None` for anything else.
pub(crate) fn date_time(text: &str) -> Option<DateTime> {
    let (date, rest) = text.split_once('T')?;
    let mut parts = date.splitn(3, '-');
    let (year, month, day) =
        (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let zone_at = rest.find(['Z', '+', '-']).unwrap_or(rest.len());
    let (time, zone) = rest.split_at(zone_at);
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut parts = clock.splitn(3, ':');
    let (hour, minute) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let second = parts.next().map_or(Some(0), |s| digits(s, 2))?;
    let fits =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 25 && minute < 60 && second < 61;
    if !fits || (time.contains('.') && fraction.is_empty()) || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let micros: String = fraction.chars().chain(std::iter::repeat('0')).take(6).collect();
    let offset_s = offset(zone)?;
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset_s;
    let unix_us = seconds * 1_000_000 + micros.parse::<i64>().ok()?;
    Some(DateTime { unix_us, exact: !zone.is_empty() && fraction.len() >= 3 })
}

fn offset(zone: &str) -> Option<i64> {
    let sign = match zone.bytes().next() {
        None => return Some(0),
        Some(b'Z') => return (zone == "Z").then_some(0),
        Some(b'-') => -1,
        Some(_) => 1,
    };
    let rest = &zone[1..];
    let (hours, minutes) = match rest.split_once(':') {
        Some((hours, minutes)) => (hours, minutes),
        None if rest.len() == 4 && rest.is_ascii() => rest.split_at(2),
        None => (rest, "00"),
    };
    Some(sign * (digits(hours, 2)? * 3600 + digits(minutes, 2)? * 60))
}

fn digits(text: &str, count: usize) -> Option<i64> {
    (text.len() == count && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// Days since 1970-01-01 of a Gregorian date: years of 365 days, leap days of the years before March counted in.
fn days(year: i64, month: i64, day: i64) -> i64 {
    const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let index = usize::try_from(month - 1).unwrap_or(0).min(11);
    let whole = if month > 2 { year } else { year - 1 };
    let leaps = |y: i64| y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400);
    (year - 1970) * 365 + leaps(whole) - leaps(1969) + BEFORE[index] + day - 1
}

/// Reads an IMF-fixdate (`Sun, 06 Nov 1994 08:49:37 GMT`) as Unix seconds.
pub(crate) fn http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_once(", ")?.1.split(' ');
    let day = digits(words.next()?, 2)?;
    let name = words.next()?;
    let month = i64::try_from(MONTHS.iter().position(|m| *m == name)?).ok()? + 1;
    let year = digits(words.next()?, 4)?;
    let mut clock = words.next()?.splitn(3, ':');
    let mut two = || digits(clock.next()?, 2);
    let seconds = two()? * 3600 + two()? * 60 + two()?;
    (words.next() == Some("GMT")).then_some(days(year, month, day) * 86_400 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (text, unix_us, exact) in [
            ("1970-01-01T00:00:00.000Z", 0, true),
            ("2026-11-22T07:40:00.001Z", 1_795_333_200_001_000, true),
            ("2026-11-22T08:40:00.001+01:00", 1_795_333_200_001_000, true),
            ("2026-11-22T02:40:00.0010-0500", 1_795_333_200_001_000, true),
            ("2000-02-29T00:00:00Z", 951_782_400_000_000, false),
            ("2026-11-22T07:40:00.001", 1_795_333_200_001_000, false),
            ("1969-12-31T23:59", -60_000_000, false),
        ] {
            assert_eq!(date_time(text), Some(DateTime { unix_us, exact }), "{text}");
        }
        for text in [
            "",
            "2026-11-22",
            "2026-13-22T00:00:00Z",
            "2026-11-22 07:40:00Z",
            "2026-11-22T07:40:00.Z",
            "x",
            "2026-11-22T07:40:00.0Zx",
        ] {
            assert_eq!(date_time(text), None, "{text}");
        }
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date("yesterday"), None);
    }
}
