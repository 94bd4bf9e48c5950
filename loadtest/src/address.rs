//! Addresses: what a URL on the command line means, and where a URI in a playlist leads.
//!
//! Invariants: http and https only; a resolved path starts with `/` and has no `.` or `..` left. Deliberately absent:
//! user names and passwords in URLs, percent-decoding (paths are sent as written).
#![deny(clippy::disallowed_methods)]

use std::fmt;

/// A URL that cannot be used: the caller's fault (or the server's, when it came in a redirect); a retry does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    #[error("{0}: expected http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH")]
    NotHttp(String),
    #[error("{0}: the port must be 1 to 65535")]
    Port(String),
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Authority {
    pub(crate) tls: bool,
    /// Without brackets for IPv6.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A server and a path with its query.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub(crate) authority: Authority,
    pub(crate) path: String,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.authority.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

impl std::str::FromStr for Address {
    type Err = AddressError;

    fn from_str(url: &str) -> Result<Self, AddressError> {
        let bad = || AddressError::NotHttp(url.chars().take(200).collect());
        let (tls, rest) = if let Some(rest) = url.strip_prefix("http://") {
            (false, rest)
        } else if let Some(rest) = url.strip_prefix("https://") {
            (true, rest)
        } else {
            return Err(bad());
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let split = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(split);
        let (host, port) = host_and_port(authority).ok_or_else(bad)?;
        let visible = |b: u8| (0x21..0x7f).contains(&b);
        if host.is_empty() || authority.contains('@') || !rest.bytes().all(visible) {
            return Err(bad());
        }
        let port = match port {
            None => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| AddressError::Port(authority.to_owned()))?,
        };
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self { authority: Authority { tls, host: host.to_owned(), port }, path: format!("{slash}{path}") })
    }
}

fn host_and_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        return match after.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => after.is_empty().then_some((host, None)),
        };
    }
    match authority.split_once(':') {
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
        None => Some((authority, None)),
    }
}

impl Address {
    /// Where `reference`, found in the document at this address, leads (RFC 3986 section 5.2).
    pub(crate) fn join(&self, reference: &str) -> Result<Self, AddressError> {
        if reference.contains("://") && !reference.starts_with('/') {
            return reference.parse();
        }
        if let Some(rest) = reference.strip_prefix("//") {
            let scheme = if self.authority.tls { "https" } else { "http" };
            return format!("{scheme}://{rest}").parse();
        }
        let visible = |b: u8| (0x21..0x7f).contains(&b);
        if !reference.bytes().all(visible) {
            return Err(AddressError::NotHttp(reference.chars().take(200).collect()));
        }
        let own_path = self.path.split('?').next().unwrap_or("/");
        let path = if reference.is_empty() {
            self.path.clone()
        } else if reference.starts_with('/') {
            normal(reference)
        } else if reference.starts_with('?') {
            format!("{own_path}{reference}")
        } else {
            let folder = own_path.rfind('/').map_or("/", |at| &own_path[..=at]);
            normal(&format!("{folder}{reference}"))
        };
        Ok(Self { authority: self.authority.clone(), path })
    }

    /// This address with delivery directives added to its query.
    pub(crate) fn with_query(&self, query: &str) -> String {
        if query.is_empty() {
            return self.path.clone();
        }
        let separator = if self.path.contains('?') { '&' } else { '?' };
        format!("{}{separator}{query}", self.path)
    }
}

/// Removes dot segments from a path; a query is left alone.
fn normal(path: &str) -> String {
    let (path, query) = match path.find('?') {
        Some(at) => path.split_at(at),
        None => (path, ""),
    };
    if !path.contains("/.") {
        return format!("{path}{query}");
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            other => kept.push(other),
        }
    }
    format!("/{}{query}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (url, shown) in [
            ("http://127.0.0.1:7070/live/a/index.m3u8", "http://127.0.0.1:7070/live/a/index.m3u8"),
            ("https://localhost/x?token=1#f", "https://localhost:443/x?token=1"),
            ("http://[::1]:80", "http://[::1]:80/"),
            ("http://h?x=1", "http://h:80/?x=1"),
        ] {
            assert_eq!(url.parse::<Address>().unwrap().to_string(), shown);
        }
        for url in [
            "",
            "ftp://x/",
            "http://",
            "http://a:0/",
            "http://a:b/",
            "http://u@h/",
            "http://a b/",
            "http://[::1/",
        ] {
            assert!(url.parse::<Address>().is_err(), "{url}");
        }
    }

    #[test]
    fn references() {
        let base: Address = "http://h:1/s/T/live/a/v/media.m3u8?x=1".parse().unwrap();
        for (reference, path) in [
            ("1.0.m4s", "/s/T/live/a/v/1.0.m4s"),
            ("../b/media.m3u8?y=/../z", "/s/T/live/a/b/media.m3u8?y=/../z"),
            ("./1.m4s", "/s/T/live/a/v/1.m4s"),
            ("/abs/./p", "/abs/p"),
            ("../../../../../../../x", "/x"),
            ("..", "/s/T/live/a/"),
            ("?q=2", "/s/T/live/a/v/media.m3u8?q=2"),
            ("", "/s/T/live/a/v/media.m3u8?x=1"),
        ] {
            assert_eq!(base.join(reference).unwrap().path, path, "{reference}");
        }
        assert_eq!(base.join("https://o/p").unwrap().to_string(), "https://o:443/p");
        assert_eq!(base.join("//o/p").unwrap().to_string(), "http://o:80/p");
        assert_eq!(base.with_query("_HLS_msn=1"), "/s/T/live/a/v/media.m3u8?x=1&_HLS_msn=1");
        assert!(base.join("a\r\nX: y").is_err());
    }
}
