//! `rtmp://` addresses taken apart the way encoders do it: the last path element is the stream name.
#![deny(clippy::disallowed_methods)]

/// Why text is no RTMP address. Whoever typed it is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Neither `rtmp://` nor `rtmps://`.
    #[error("an RTMP address begins with rtmp:// or rtmps://")]
    Scheme,
    /// No host, or a port that is no number.
    #[error("an RTMP address needs a host, and its port is a number")]
    Authority,
    /// Less than an application and a stream name.
    #[error("an RTMP address needs a path of application and stream name, as in rtmp://host/live/key")]
    Path,
}

/// The parts of `rtmp[s]://host[:port]/app[/more]/stream[?query]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RtmpUrl {
    /// `rtmps`.
    pub tls: bool,
    /// Host name or address, without the brackets of an IPv6 address.
    pub host: String,
    /// TCP port; 1935, or 443 with TLS, when not given.
    pub port: u16,
    /// Application: the path without its last element.
    pub app: String,
    /// Last path element with its query: the stream name. A secret.
    pub stream_name: String,
    /// The address without the stream name.
    pub tc_url: String,
}

impl RtmpUrl {
    /// Takes `url` apart.
    ///
    /// # Errors
    /// [`UrlError`] says which part is missing.
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = url.split_once("://").ok_or(UrlError::Scheme)?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "rtmp" => false,
            "rtmps" => true,
            _ => return Err(UrlError::Scheme),
        };
        let (authority, path) = rest.split_once('/').ok_or(UrlError::Path)?;
        let default_port = if tls { 443 } else { 1935 };
        let (host, port) = split_authority(authority, default_port).ok_or(UrlError::Authority)?;
        let query_start = path.find('?').unwrap_or(path.len());
        let cut = path[..query_start].rfind('/').ok_or(UrlError::Path)?;
        let (app, stream_name) = (path[..cut].trim_matches('/'), &path[cut + 1..]);
        if app.is_empty() || stream_name.is_empty() || stream_name.starts_with('?') {
            return Err(UrlError::Path);
        }
        Ok(Self {
            tls,
            host: host.to_owned(),
            port,
            app: app.to_owned(),
            stream_name: stream_name.to_owned(),
            tc_url: format!("{scheme}://{authority}/{app}"),
        })
    }
}

fn split_authority(authority: &str, default_port: u16) -> Option<(&str, u16)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']')?;
            let port = if after.is_empty() { None } else { Some(after.strip_prefix(':')?) };
            (host, port)
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = port.map_or(Some(default_port), |port| port.parse().ok())?;
    (!host.is_empty()).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart_as_encoders_do() {
        let cases = [
            ("rtmp://127.0.0.1:1936/live/key?a=b/c", (false, "127.0.0.1", 1936, "live", "key?a=b/c")),
            ("rtmp://host/live/more/key", (false, "host", 1935, "live/more", "key")),
            ("RTMPS://[::1]/live/key", (true, "::1", 443, "live", "key")),
            ("rtmps://[::1]:9/live/key", (true, "::1", 9, "live", "key")),
        ];
        for (url, (tls, host, port, app, stream_name)) in cases {
            let parsed = RtmpUrl::parse(url).unwrap();
            let RtmpUrl { tls: t, host: h, port: p, app: a, stream_name: s, .. } = &parsed;
            assert_eq!(
                (*t, h.as_str(), *p, a.as_str(), s.as_str()),
                (tls, host, port, app, stream_name),
                "{url}"
            );
        }
        assert_eq!(RtmpUrl::parse("rtmp://h:1/live/key?x").unwrap().tc_url, "rtmp://h:1/live");
    }

    #[test]
    fn what_is_missing_is_named() {
        let cases = [
            ("http://host/live/key", UrlError::Scheme),
            ("host/live/key", UrlError::Scheme),
            ("rtmp:///live/key", UrlError::Authority),
            ("rtmp://host:port/live/key", UrlError::Authority),
            ("rtmp://[::1/live/key", UrlError::Authority),
            ("rtmp://host", UrlError::Path),
            ("rtmp://host/live", UrlError::Path),
            ("rtmp://host/live/", UrlError::Path),
            ("rtmp://host/live?x/key", UrlError::Path),
            ("rtmp://host//key", UrlError::Path),
        ];
        for (url, error) in cases {
            assert_eq!(RtmpUrl::parse(url), Err(error), "{url}");
        }
    }
}
