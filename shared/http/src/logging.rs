//! Logs: to stderr, as text for people or JSON lines for machines, filtered by `RUST_LOG`, else by the configuration, else
//! from `info` on. The filter can change while the process runs.

use crate::config::Problem;
use serde::Deserialize;
use std::sync::OnceLock;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// `--log-format`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One readable line per event.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// `[log]` of a configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// As `RUST_LOG`, which goes before it.
    pub filter: Option<String>,
}

impl LogConfig {
    /// What is not allowed.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let bad = |filter: &String| EnvFilter::builder().parse(filter).is_err();
        let filter = self.filter.iter().filter(|filter| bad(filter));
        filter
            .map(|filter| Problem::new("log.filter", filter, "a level, or target=level, separated by commas"))
            .collect()
    }
}

type SetFilter = Box<dyn Fn(EnvFilter) + Send + Sync>;

/// There is one log in a process.
static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

/// Starts logging for the whole process. A second call changes nothing.
pub fn init(format: LogFormat) {
    let builder = tracing_subscriber::fmt().with_env_filter(filter(None)).with_writer(std::io::stderr);
    // An error only says that a subscriber is already there.
    let _ = match format {
        LogFormat::Text => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            let builder = builder.with_ansi(ansi).with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = SET_FILTER.set(Box::new(move |filter| drop(handle.reload(filter))));
            builder.try_init()
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = SET_FILTER.set(Box::new(move |filter| drop(handle.reload(filter))));
            builder.try_init()
        }
    };
}

/// Filters from now on as `config` says, unless `RUST_LOG` does.
pub fn apply(config: &LogConfig) {
    if let Some(set) = SET_FILTER.get() {
        set(filter(config.filter.as_deref()));
    }
}

fn filter(configured: Option<&str>) -> EnvFilter {
    let builder = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    match (std::env::var_os(EnvFilter::DEFAULT_ENV), configured) {
        (None, Some(filter)) => builder.parse_lossy(filter),
        _ => builder.from_env_lossy(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_that_cannot_be_read_are_named() {
        for (filter, good) in [("debug", true), ("info,sigma_http=trace", true), ("a=b=c", false)] {
            let config = LogConfig { filter: Some(filter.to_owned()) };
            assert_eq!(config.problems().is_empty(), good, "{filter}");
        }
    }
}
