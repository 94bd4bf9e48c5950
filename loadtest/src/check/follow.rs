//! Following one media playlist as a player does, with blocking reloads, for the time of the observation.

use crate::check::exchange::{Ask, Net};
use crate::check::media::Media;
use crate::check::record::{Event, Rendition, View};
use sigma_shared::directives::Directives;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Wait after a request that failed.
const RETRY: Duration = Duration::from_millis(500);

/// What the tasks of one rendition share.
pub(crate) struct Seat<N> {
    pub(crate) net: Arc<N>,
    pub(crate) index: usize,
    pub(crate) rendition: Rendition,
    pub(crate) events: mpsc::Sender<Event>,
    /// When the observation ends, since the beginning of the check.
    pub(crate) deadline: Duration,
}

impl<N> Clone for Seat<N> {
    fn clone(&self) -> Self {
        Self {
            net: Arc::clone(&self.net),
            index: self.index,
            rendition: self.rendition.clone(),
            events: self.events.clone(),
            deadline: self.deadline,
        }
    }
}

impl<N: Net> Seat<N> {
    /// Tells the judge; whoever listens no more does not matter.
    pub(crate) async fn tell(&self, event: Event) {
        let _ = self.events.send(event).await;
    }

    /// Time left.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_sub(self.net.now())
    }

    /// Gets the playlist; `None` (and the judge knows) if that fails.
    pub(crate) async fn playlist(&self, asked: Option<(u64, Option<u32>)>) -> Option<Arc<View>> {
        let directives =
            Directives { msn: asked.map(|(msn, _)| msn), part: asked.and_then(|(_, part)| part), skip: None };
        let exchange = self.net.ask(Ask::directed(&self.rendition.address, &directives.to_string())).await;
        let Some(answer) = exchange.ok() else {
            self.tell(Event::Lost { rendition: self.index, exchange }).await;
            return None;
        };
        let media = Media::read(&answer.body);
        Some(Arc::new(View { rendition: self.index, exchange, asked, media }))
    }
}

/// Follows until the time is over or the broadcast ends. Every view goes to the judge, to `tip` and to `views`.
pub(crate) async fn follow<N: Net>(
    seat: Seat<N>,
    tip: watch::Sender<Option<Arc<View>>>,
    views: mpsc::Sender<Arc<View>>,
) {
    let mut asked = None;
    while !seat.left().is_zero() {
        let Some(view) = seat.playlist(asked).await else {
            asked = None;
            tokio::time::sleep(RETRY.min(seat.left())).await;
            continue;
        };
        seat.tell(Event::View(Arc::clone(&view))).await;
        tip.send_replace(Some(Arc::clone(&view)));
        if views.send(Arc::clone(&view)).await.is_err() || view.media.ended {
            break;
        }
        asked = next(&view);
        if asked.is_none() {
            let interval = view.media.part_target.unwrap_or(view.media.target_duration / 2);
            tokio::time::sleep(interval.max(Duration::from_millis(100)).min(seat.left())).await;
        }
    }
}

/// What to ask for after a view; `None`: the server does not block, poll.
pub(crate) fn next(view: &View) -> Option<(u64, Option<u32>)> {
    let media = &view.media;
    if !media.can_block() || !media.is_playlist() {
        return None;
    }
    let (msn, part) = media.next();
    // The answer had nothing new: asking again would be answered at once, again and again.
    if view.asked.is_some_and(|(asked, asked_part)| (msn, part) <= (asked, asked_part.unwrap_or(0))) {
        return None;
    }
    Some((msn, media.part_target.map(|_| part)))
}
