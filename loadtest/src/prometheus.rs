//! One figure out of a Prometheus text page: the sum of the samples of a metric, with some labels if wanted.
#![deny(clippy::disallowed_methods)]

use std::fmt;

/// `name` or `name{label="value",…}`: samples with at least these labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selector {
    name: String,
    labels: Vec<String>,
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.labels.is_empty() {
            return Ok(());
        }
        write!(f, "{{{}}}", self.labels.join(","))
    }
}

impl std::str::FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text}: expected NAME or NAME{{label=\"value\"}}");
        let (name, labels) = match text.split_once('{') {
            None => (text, ""),
            Some((name, rest)) => (name, rest.strip_suffix('}').ok_or_else(bad)?),
        };
        let valid = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b':';
        if name.is_empty() || !name.bytes().all(valid) {
            return Err(bad());
        }
        let labels: Vec<String> =
            labels.split(',').filter(|label| !label.is_empty()).map(str::to_owned).collect();
        if !labels.iter().all(|label| label.contains("=\"") && label.ends_with('"')) {
            return Err(bad());
        }
        Ok(Self { name: name.to_owned(), labels })
    }
}

impl Selector {
    /// The sum of all samples selected; `None` if there is none.
    pub(crate) fn sum(&self, page: &[u8]) -> Option<f64> {
        let mut sum = None;
        for line in String::from_utf8_lossy(page).lines() {
            let Some(rest) = line.strip_prefix(self.name.as_str()) else {
                continue;
            };
            let (labels, value) = match rest.strip_prefix('{') {
                Some(rest) => {
                    let Some((labels, value)) = rest.rsplit_once('}') else {
                        continue;
                    };
                    (labels, value)
                }
                None if rest.starts_with(' ') => ("", rest),
                None => continue,
            };
            let selected = self.labels.iter().all(|wanted| labels.contains(wanted.as_str()));
            let value = value.split_ascii_whitespace().next().and_then(|v| v.parse::<f64>().ok());
            if let Some(value) = value.filter(|_| selected) {
                sum = Some(sum.unwrap_or(0.0) + value);
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums() {
        let page = b"# TYPE up counter\nup_total 3\nup_total{kind=\"part\",pop=\"a\"} 4 1700000\n\
            up_total{kind=\"playlist\",pop=\"a\"} 5\nup_total_other 100\n";
        for (selector, sum) in [
            ("up_total", Some(12.0)),
            ("up_total{kind=\"part\"}", Some(4.0)),
            ("up_total{kind=\"playlist\",pop=\"a\"}", Some(5.0)),
            ("up_total{kind=\"x\"}", None),
            ("up", None),
        ] {
            assert_eq!(selector.parse::<Selector>().unwrap().sum(page), sum, "{selector}");
        }
        for bad in ["", "a b", "a{", "a{b}", "{a=\"b\"}"] {
            assert!(bad.parse::<Selector>().is_err(), "{bad}");
        }
    }
}
