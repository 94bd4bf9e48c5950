//! `sigma-load check`: is this a server that the LL-HLS specification describes? A black box, asked and watched.
//!
//! The pure core reads playlists and media (`attributes`, `tags`, `sheet`, `media`, `master`, `delta`, `boxes`, `init`,
//! `fragment`, `date`), knows the rules (`catalog`), judges recordings (`judge`, `rules`) and keeps what it found
//! (`ledger`, `report`). The shell makes the requests: `survey`, `follow`, `objects`, `probes`, over a `Net` (`wire`).
//! Deliberately absent: playback, decoding of pictures and sound.

pub(crate) mod attributes;
pub(crate) mod boxes;
pub(crate) mod catalog;
pub(crate) mod date;
pub(crate) mod delta;
pub(crate) mod exchange;
pub(crate) mod follow;
pub(crate) mod fragment;
pub(crate) mod init;
pub(crate) mod judge;
pub(crate) mod ledger;
pub(crate) mod master;
pub(crate) mod media;
pub(crate) mod objects;
pub(crate) mod probes;
pub(crate) mod record;
pub(crate) mod report;
pub(crate) mod rules;
pub(crate) mod sheet;
pub(crate) mod survey;
pub(crate) mod tags;
pub(crate) mod wire;

use crate::address::Address;
use exchange::Net;
use follow::Seat;
use judge::Judge;
use record::{Event, Role};
use report::Report;
use std::sync::Arc;
use std::time::Duration;
use survey::SurveyError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Events between the driver and the judge.
const EVENTS_MAX: usize = 256;
/// Views waiting for their media to be asked for.
const VIEWS_MAX: usize = 16;

/// What to check.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) address: Address,
    /// Other servers of the same.
    pub(crate) compare: Vec<Address>,
    /// How long to watch.
    pub(crate) duration: Duration,
}

/// Checks, over any network.
///
/// # Errors
/// There is no playlist to check.
pub(crate) async fn run<N: Net>(net: Arc<N>, plan: &Plan) -> Result<Report, SurveyError> {
    let presentation = survey::survey(&net, &plan.address).await?;
    let mut elsewhere = Vec::new();
    for address in &plan.compare {
        elsewhere.push(survey::survey(&net, address).await?);
    }
    let (events, mut told) = mpsc::channel(EVENTS_MAX);
    let deadline = net.now() + plan.duration;
    let seats: Vec<Seat<N>> = (0..)
        .zip(&presentation.renditions)
        .map(|(index, rendition)| Seat {
            net: Arc::clone(&net),
            index,
            rendition: rendition.clone(),
            events: events.clone(),
            deadline,
        })
        .collect();
    let mut judge = Judge::default();
    judge.see(Event::Presentation(presentation.clone()));
    judge.see(Event::Handshake(net.handshake(&plan.address).await));
    for there in &elsewhere {
        if let Some(master) = &there.master {
            judge.see(Event::Elsewhere(Box::new((master.0.clone(), there.clone()))));
        }
    }
    let tasks = start(seats, elsewhere);
    drop(events);
    while let Some(event) = told.recv().await {
        judge.see(event);
    }
    drop(tasks);
    let mut report = Report::new(&judge.finish(), &presentation);
    report.url = plan.address.to_string();
    report.compared_with = plan.compare.iter().map(ToString::to_string).collect();
    report.seconds = plan.duration.as_secs_f64();
    Ok(report)
}

/// Starts everything that makes requests; it ends by itself some time after the deadline.
fn start<N: Net>(seats: Vec<Seat<N>>, elsewhere: Vec<record::Presentation>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let mut compared = Vec::new();
    for seat in &seats {
        let (tip, looking) = watch::channel(None);
        let (views, listed) = mpsc::channel(VIEWS_MAX);
        tasks.spawn(follow::follow(seat.clone(), tip, views));
        tasks.spawn(objects::fetch(seat.clone(), listed));
        tasks.spawn(probes::probe(seat.clone(), looking.clone()));
        if seat.index == 0 {
            tasks.spawn(probes::tune_in(seat.clone(), looking.clone()));
        }
        compared.push((seat.clone(), looking));
    }
    for there in elsewhere {
        tasks.spawn(probes::compare(compared.clone(), there));
    }
    drop(compared);
    let together = seats.into_iter().filter(|seat| seat.rendition.role != Role::IFrames).collect();
    tasks.spawn(probes::together(together));
    tasks
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
