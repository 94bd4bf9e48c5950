//! `sigma-origin playback-token create`: a playback token made with the origin's own key, on the origin's machine.
//!
//! Deliberately absent: making one from afar, which comes with the REST API.

use crate::config::Config;
use crate::policy::{self, PolicyError};
use clap::{Args, Subcommand};
use serde_json::json;
use sigma_token::claims::{CHANNELS_MAX, Channels, Claims, SUBJECT_BYTES_MAX};
use sigma_token::ip::IpPrefix;
use sigma_token::jwt::TOKEN_BYTES_MAX;
use std::path::PathBuf;

/// What can be done with playback tokens.
#[derive(Subcommand)]
pub(crate) enum TokenCommand {
    /// Print a token for viewers: https://EDGE/live/CHANNEL/index.m3u8?token=TOKEN
    ///
    /// It is signed with the origin's own key, which is in data_dir of the configuration, or with the one that follows from
    /// playback.cluster_secret_file: run it on the origin's machine, as the origin's user. The origin need not run, but must
    /// have run once. Making tokens from afar, over the REST API,
    /// comes with a later release.
    Create(CreateArgs),
}

/// What a token says.
#[derive(Args)]
pub(crate) struct CreateArgs {
    /// The origin's configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "SIGMA_ORIGIN_CONFIG")]
    config: PathBuf,
    /// What it opens: a channel, several (repeat the option), or '*' for all
    #[arg(long, value_name = "ID", required = true)]
    channel: Vec<String>,
    /// Who watches: any name of up to 256 bytes, for --max-sessions and for revoking it
    #[arg(long, value_name = "S")]
    subject: Option<String>,
    /// For how long it is good, in seconds from now; playlists end then, too
    #[arg(long, value_name = "N", default_value_t = 3600, value_parser = clap::value_parser!(u32).range(1..))]
    expires_s: u32,
    /// Not good before this time (RFC 3339, such as 2026-11-22T20:00:00Z)
    #[arg(long, value_name = "TIME")]
    not_before: Option<String>,
    /// Where viewers come from (a network such as 192.0.2.0/24 or 2001:db8::/56)
    #[arg(long, value_name = "CIDR")]
    ip: Option<String>,
    /// How many sessions of the subject at a time
    #[arg(long, value_name = "N", requires = "subject", value_parser = clap::value_parser!(u32).range(1..))]
    max_sessions: Option<u32>,
    /// A latency mode it is good for: ultra, low or normal (repeat the option) [default: all]
    #[arg(long, value_name = "M")]
    mode: Vec<String>,
    /// Print a JSON object with the token, its key and its times
    #[arg(long)]
    json: bool,
}

/// What to print.
pub(crate) fn create(args: &CreateArgs) -> Result<String, String> {
    let config: Config = sigma_http::config::load(&args.config).map_err(|error| error.to_string())?;
    let now_s = policy::now_ms() / 1000;
    let claims = claims(args, &config, now_s)?;
    let key = policy::signing_key(&config).map_err(|error: PolicyError| error.to_string())?;
    let token = key.sign(&claims).map_err(|error| error.to_string())?;
    if token.len() > TOKEN_BYTES_MAX {
        return Err(format!(
            "the token has {} bytes, edges take {TOKEN_BYTES_MAX}: name fewer channels",
            token.len()
        ));
    }
    if !args.json {
        return Ok(token);
    }
    let date = |seconds: u64| {
        let seconds = i64::try_from(seconds).ok()?;
        jiff::Timestamp::from_second(seconds).ok().map(|date| date.to_string())
    };
    let json = json!({
        "token": token, "kid": key.kid(), "subject": args.subject, "channels": args.channel,
        "issued_at": date(now_s), "expires_at": date(claims.exp), "not_before": claims.nbf.and_then(date),
    });
    Ok(format!("{json:#}"))
}

fn claims(args: &CreateArgs, config: &Config, now_s: u64) -> Result<Claims, String> {
    let mut claims = Claims::new(channels(args, config)?, now_s.saturating_add(args.expires_s.into()));
    claims.iat = Some(now_s);
    if let Some(subject) = &args.subject {
        if !(1..=SUBJECT_BYTES_MAX).contains(&subject.len()) {
            return Err(format!("--subject: 1 to {SUBJECT_BYTES_MAX} bytes are allowed"));
        }
        claims.sub = Some(subject.clone());
    }
    if let Some(from) = &args.not_before {
        let parsed =
            from.parse::<jiff::Timestamp>().ok().and_then(|from| u64::try_from(from.as_second()).ok());
        let from = parsed.ok_or_else(|| format!("--not-before {from}: RFC 3339 with a zone is expected"))?;
        if from >= claims.exp {
            return Err("--not-before is after the token's end: --expires-s counts from now".to_owned());
        }
        claims.nbf = Some(from);
    }
    if let Some(ip) = &args.ip {
        claims.ip = Some(ip.parse::<IpPrefix>().map_err(|error| format!("--ip {ip}: {error}"))?);
    }
    if !args.mode.is_empty() {
        let parsed = args
            .mode
            .iter()
            .map(|mode| mode.parse().map_err(|_| format!("--mode {mode}: ultra, low or normal is expected")));
        claims.modes = Some(parsed.collect::<Result<_, _>>()?);
    }
    claims.max_sessions = args.max_sessions;
    Ok(claims)
}

fn channels(args: &CreateArgs, config: &Config) -> Result<Channels, String> {
    if args.channel.iter().any(|channel| channel == "*") {
        return Ok(Channels::All);
    }
    if args.channel.len() > CHANNELS_MAX {
        return Err(format!("--channel: at most {CHANNELS_MAX} channels, or '*'"));
    }
    let known = args.channel.iter().map(|id| {
        let is_there = config.channels.iter().any(|channel| channel.id == *id);
        let unknown = || format!("--channel {id}: there is no such channel in {}", args.config.display());
        id.parse().ok().filter(|_| is_there).ok_or_else(unknown)
    });
    Ok(Channels::Named(known.collect::<Result<_, _>>()?))
}
