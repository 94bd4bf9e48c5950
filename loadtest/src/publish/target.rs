//! Where publishers send to: an RTMP or SRT URL for each of them.
#![deny(clippy::disallowed_methods)]

use sigma_rtmp::{RtmpUrl, UrlError};

/// What stands for the number of a publisher in a URL.
const NUMBER: &str = "{n}";

/// A URL that nobody can publish to: the caller's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("{0} (or srt://HOST:PORT?streamid=...)")]
    Rtmp(#[from] UrlError),
    #[error("rtmps is not supported, use rtmp")]
    Rtmps,
    #[error("expected srt://HOST:PORT, with ?streamid=... if the server wants one")]
    Srt,
    #[error(
        "{count} publishers need an address each: write {NUMBER} where their number belongs, from 1 to {count}"
    )]
    OneForAll { count: u32 },
}

/// Where one publisher sends to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Rtmp(RtmpUrl),
    Srt {
        /// The whole URL. What is in it may be secret.
        url: String,
        host: String,
        port: u16,
    },
}

impl Target {
    fn parse(url: &str) -> Result<Self, TargetError> {
        if let Some(rest) = url.strip_prefix("srt://") {
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let (host, port) = authority.rsplit_once(':').ok_or(TargetError::Srt)?;
            let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            let port = port.parse().ok().filter(|port| *port > 0).ok_or(TargetError::Srt)?;
            if host.is_empty() || host.contains('@') {
                return Err(TargetError::Srt);
            }
            return Ok(Self::Srt { url: url.to_owned(), host: host.to_owned(), port });
        }
        let url = RtmpUrl::parse(url)?;
        if url.tls { Err(TargetError::Rtmps) } else { Ok(Self::Rtmp(url)) }
    }

    /// Those of so many publishers.
    ///
    /// # Errors
    /// The URL is none, or the same for several.
    pub(crate) fn of_all(url: &str, count: u32) -> Result<Vec<Self>, TargetError> {
        if count > 1 && !url.contains(NUMBER) {
            return Err(TargetError::OneForAll { count });
        }
        (1..=count).map(|number| Self::parse(&url.replace(NUMBER, &number.to_string()))).collect()
    }

    pub(crate) fn host(&self) -> &str {
        match self {
            Self::Rtmp(url) => &url.host,
            Self::Srt { host, .. } => host,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Rtmp(url) => url.port,
            Self::Srt { port, .. } => *port,
        }
    }

    /// The server, without anything secret.
    pub(crate) fn server(&self) -> String {
        let (scheme, host) = match self {
            Self::Rtmp(url) => ("rtmp", &url.host),
            Self::Srt { host, .. } => ("srt", host),
        };
        if host.contains(':') {
            format!("{scheme}://[{host}]:{}", self.port())
        } else {
            format!("{scheme}://{host}:{}", self.port())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_publisher_has_an_address_of_its_own() {
        let three = Target::of_all("rtmp://127.0.0.1/live{n}/key-{n}", 3).unwrap();
        let names: Vec<_> = three
            .iter()
            .map(|target| match target {
                Target::Rtmp(url) => format!("{}/{}", url.app, url.stream_name),
                Target::Srt { url, .. } => url.clone(),
            })
            .collect();
        assert_eq!(names, ["live1/key-1", "live2/key-2", "live3/key-3"]);
        let one = Target::of_all("rtmp://127.0.0.1/live/key", 1).unwrap();
        assert_eq!((one.len(), one[0].server().as_str()), (1, "rtmp://127.0.0.1:1935"));
        let same = Target::of_all("rtmp://127.0.0.1/live/key", 2).unwrap_err();
        assert_eq!(same, TargetError::OneForAll { count: 2 });
        assert!(same.to_string().contains("{n}"), "{same}");
    }

    #[test]
    fn srt_addresses() {
        for (url, host, port) in [
            ("srt://127.0.0.1:8890?streamid=#!::r=live/key,m=publish", "127.0.0.1", 8890),
            ("srt://[::1]:9/", "::1", 9),
            ("srt://origin.example:1", "origin.example", 1),
        ] {
            let target = Target::of_all(url, 1).unwrap().remove(0);
            assert_eq!((target.host(), target.port()), (host, port), "{url}");
            assert!(!target.server().contains("streamid"));
            assert_eq!(target, Target::Srt { url: url.into(), host: host.into(), port });
        }
        for bad in ["srt://127.0.0.1", "srt://:1", "srt://127.0.0.1:0", "srt://127.0.0.1:x", "srt://"] {
            assert_eq!(Target::of_all(bad, 1), Err(TargetError::Srt), "{bad}");
        }
        assert_eq!(Target::of_all("rtmps://127.0.0.1/a/b", 1), Err(TargetError::Rtmps));
        assert!(Target::of_all("http://127.0.0.1/a/b", 1).unwrap_err().to_string().contains("srt://"));
    }
}
