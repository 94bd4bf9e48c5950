//! The presentation behind a URL: its multivariant playlist and the media playlists that it names.
//!
//! Invariant: only the multivariant playlist may be redirected, a few times.

use crate::address::{Address, AddressError};
use crate::check::exchange::{Ask, Exchange, Net};
use crate::check::master::{Entry, Master};
use crate::check::record::{Presentation, Rendition, Role};
use std::sync::Arc;

/// Redirects followed.
const REDIRECTS_MAX: u32 = 3;
/// Media playlists checked of one presentation.
const RENDITIONS_MAX: usize = 32;

/// There is nothing to check.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SurveyError {
    #[error("{request}: {said}")]
    Refused { request: String, said: String },
    #[error("{0}: neither a multivariant nor a media playlist")]
    NoPlaylist(String),
    #[error("{0}")]
    Address(#[from] AddressError),
}

/// Loads the playlist at `address` and finds its renditions.
pub(crate) async fn survey<N: Net>(net: &Arc<N>, address: &Address) -> Result<Presentation, SurveyError> {
    let exchange = load(net, address).await?;
    let at = exchange.ask.address.clone();
    let Some(answer) = exchange.ok() else {
        return Err(SurveyError::Refused { request: exchange.ask.to_string(), said: exchange.said() });
    };
    if !answer.body.starts_with(b"#EXT") && !answer.body.starts_with("\u{feff}#EXT".as_bytes()) {
        return Err(SurveyError::NoPlaylist(exchange.ask.to_string()));
    }
    if !Master::is_one(&answer.body) {
        let only = Rendition { name: at.path.clone(), address: at, role: Role::Variant, bandwidth: 0 };
        return Ok(Presentation { master: None, renditions: vec![only] });
    }
    let master = Master::read(&answer.body);
    let mut renditions: Vec<Rendition> = Vec::new();
    let mut add = |entry: &Entry, role: Role| -> Result<(), AddressError> {
        let Some(uri) = &entry.uri else { return Ok(()) };
        if renditions.len() < RENDITIONS_MAX && !renditions.iter().any(|r| r.name == *uri) {
            let address = at.join(uri)?;
            renditions.push(Rendition { name: uri.clone(), address, role, bandwidth: entry.bandwidth() });
        }
        Ok(())
    };
    for entry in &master.variants {
        add(entry, Role::Variant)?;
    }
    for entry in &master.renditions {
        let role = if entry.list.get("TYPE") == Some("SUBTITLES") { Role::Subtitles } else { Role::Audio };
        add(entry, role)?;
    }
    for entry in &master.i_frames {
        add(entry, Role::IFrames)?;
    }
    Ok(Presentation { master: Some(Arc::new((exchange, master))), renditions })
}

async fn load<N: Net>(net: &Arc<N>, address: &Address) -> Result<Exchange, SurveyError> {
    let mut at = address.clone();
    let mut exchange = net.ask(Ask::get(&at)).await;
    for _ in 0..REDIRECTS_MAX {
        let location = match &exchange.outcome {
            Ok(answer) if (300..400).contains(&answer.status) => answer.header("location").map(str::to_owned),
            _ => None,
        };
        let Some(location) = location else { break };
        at = at.join(&location)?;
        exchange = net.ask(Ask::get(&at)).await;
    }
    Ok(exchange)
}
