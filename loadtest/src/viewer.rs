//! One emulated viewer: the player model of each rendition driven over real connections, everything counted.
//!
//! Invariants: with HTTP/1.1 a rendition does one thing at a time on one connection; with HTTP/2 the next reload is
//! already waiting while parts are fetched, as browsers do it. A viewer ends only with its broadcast or when dropped.

use crate::address::Address;
use crate::crowd::Crowd;
use crate::fetch::{Link, Reply, Sink};
use crate::player::{Kind, Player, Step, Want};
use crate::playlist;
use crate::tally::{ErrorKind, Tally};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// Clocks of one machine may differ by this much without saying anything.
const CLOCK_TOLERANCE_MS: u64 = 5;

/// Why a rendition is no longer played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    Ended,
    Restart(Duration),
}

/// One viewer.
#[derive(Debug)]
pub(crate) struct Viewer {
    crowd: Arc<Crowd>,
    index: u64,
    address: Address,
    started: Instant,
    playing: AtomicBool,
}

/// What a viewer plays: one media playlist each for video and, if it has its own, audio.
struct Selection {
    link: Link,
    main: Address,
    audio: Option<Address>,
}

impl Viewer {
    pub(crate) fn new(crowd: Arc<Crowd>, index: u64, address: Address) -> Self {
        Self { crowd, index, address, started: Instant::now(), playing: AtomicBool::new(false) }
    }

    /// Watches until the broadcast ends.
    pub(crate) async fn watch(mut self) {
        self.started = Instant::now();
        let patience = self.crowd.habits.patience;
        let mut main = Player::new(patience, self.index * 2);
        let mut audio = Player::new(patience, self.index * 2 + 1);
        let mut failures = 0u32;
        loop {
            let wait = match self.select().await {
                Ok(selection) => {
                    failures = 0;
                    match Box::pin(self.play(selection, &mut main, &mut audio)).await {
                        Exit::Ended => return self.count(|tally| tally.ended += 1),
                        Exit::Restart(after) => after,
                    }
                }
                Err(kind) => {
                    self.count(|tally| tally.error(kind));
                    failures = failures.saturating_add(1);
                    patience.wait(failures, self.index)
                }
            };
            tokio::time::sleep(wait).await;
            main.restart();
            audio.restart();
        }
    }

    fn count(&self, update: impl FnOnce(&mut Tally)) {
        self.crowd.count(self.index, update);
    }

    /// Gets the multivariant playlist, following one redirect (a signed session path), and chooses.
    async fn select(&self) -> Result<Selection, ErrorKind> {
        let mut address = self.address.clone();
        let mut link = self.link_to(&address);
        let mut text = Vec::new();
        let mut reply = self.get(&mut link, &address.path, Sink::Text(&mut text)).await?;
        if matches!(reply.status, 301 | 302 | 303 | 307 | 308) {
            let target = reply.location.as_deref().ok_or(ErrorKind::Status(reply.status))?;
            address = address.join(target).map_err(|_| ErrorKind::BadUri)?;
            if address.authority != *link.authority() {
                link = self.link_to(&address);
            }
            reply = self.get(&mut link, &address.path, Sink::Text(&mut text)).await?;
        }
        if reply.status != 200 {
            return Err(ErrorKind::Status(reply.status));
        }
        self.count(|tally| tally.playlists += 1);
        if !std::str::from_utf8(&text).is_ok_and(playlist::is_multivariant) {
            // A media playlist may be given directly.
            playlist::media(&text).map_err(|_| ErrorKind::BadPlaylist)?;
            return Ok(Selection { link, main: address, audio: None });
        }
        let variants = playlist::multivariant(&text).map_err(|_| ErrorKind::BadPlaylist)?;
        let habits = &self.crowd.habits;
        let variant = habits.pick.of(&variants).ok_or(ErrorKind::BadPlaylist)?;
        let join = |uri: &str| {
            let target = address.join(uri).map_err(|_| ErrorKind::BadUri)?;
            let here = target.authority == address.authority;
            here.then_some(target).ok_or(ErrorKind::BadUri)
        };
        let audio_uri = variant.audio_uri.filter(|uri| !habits.video_only && *uri != variant.uri);
        Ok(Selection { main: join(variant.uri)?, audio: audio_uri.map(join).transpose()?, link })
    }

    fn link_to(&self, address: &Address) -> Link {
        let protocol = self.crowd.dialer.protocol();
        Link::new(&address.authority, protocol, self.crowd.habits.request_timeout)
    }

    async fn play(&self, selection: Selection, main: &mut Player, audio: &mut Player) -> Exit {
        let audio_link = selection.link.beside();
        let main = Rendition::new(self, selection.link, selection.main, main);
        let Some(address) = selection.audio else {
            return main.play().await;
        };
        let audio = Rendition::new(self, audio_link, address, audio);
        let (main, audio) = (main.play(), audio.play());
        tokio::pin!(main, audio);
        tokio::select! {
            exit = &mut main => if exit == Exit::Ended { audio.await } else { exit },
            exit = &mut audio => if exit == Exit::Ended { main.await } else { exit },
        }
    }

    async fn get(&self, link: &mut Link, path: &str, sink: Sink<'_>) -> Result<Reply, ErrorKind> {
        let result = link.get(&self.crowd.dialer, path, sink).await;
        self.count(|tally| {
            tally.requests += 1;
            if let Ok(reply) = &result {
                tally.bytes += reply.bytes;
            }
        });
        result.map_err(|error| {
            tracing::debug!(viewer = self.index, path, %error, "request failed");
            error.kind()
        })
    }

    /// Gets the wanted objects one after the other.
    async fn media(&self, link: &mut Link, playlist: &Address, wants: Vec<Want>) {
        for want in wants {
            if let Err(kind) = self.object(link, playlist, &want).await {
                self.count(|tally| tally.error(kind));
            }
        }
    }

    async fn object(&self, link: &mut Link, playlist: &Address, want: &Want) -> Result<(), ErrorKind> {
        let address = playlist.join(&want.uri).map_err(|_| ErrorKind::BadUri)?;
        if address.authority != *link.authority() {
            return Err(ErrorKind::BadUri);
        }
        let reply = self.get(link, &address.path, Sink::Hash).await?;
        if reply.status != 200 {
            return Err(ErrorKind::Status(reply.status));
        }
        let agrees = self.crowd.agrees(&address.path, &reply);
        let starts = want.kind != Kind::Init && !self.playing.swap(true, Ordering::Relaxed);
        self.count(|tally| {
            if !agrees {
                tally.error(ErrorKind::HashMismatch);
            }
            if starts {
                tally.startup.record(self.started.elapsed());
            }
            count_media(tally, want, &reply);
        });
        Ok(())
    }
}

fn count_media(tally: &mut Tally, want: &Want, reply: &Reply) {
    match want.kind {
        Kind::Init => {
            tally.inits += 1;
            return;
        }
        Kind::Part => tally.parts += 1,
        Kind::Segment => tally.segments += 1,
    }
    tally.media_us += want.duration_us;
    tally.first_byte.record(reply.first_byte);
    if !want.live {
        return;
    }
    let Some(at_ms) = reply.at_ms else {
        tally.undated += 1;
        return;
    };
    let available = UNIX_EPOCH + Duration::from_millis(at_ms);
    match reply.ended.duration_since(available) {
        Ok(delay) => tally.part_delay.record(delay),
        Err(ahead) => {
            tally.part_delay.record(Duration::ZERO);
            if ahead.duration() > Duration::from_millis(CLOCK_TOLERANCE_MS) {
                tally.future += 1;
            }
        }
    }
}

/// One media playlist being played.
struct Rendition<'a> {
    viewer: &'a Viewer,
    link: Link,
    address: Address,
    player: &'a mut Player,
    text: Vec<u8>,
}

impl<'a> Rendition<'a> {
    fn new(viewer: &'a Viewer, link: Link, address: Address, player: &'a mut Player) -> Self {
        viewer.crowd.rendition_starts();
        Self { viewer, link, address, player, text: Vec::new() }
    }

    async fn play(mut self) -> Exit {
        let mut media_link = self.link.beside();
        let mut wants = Vec::new();
        loop {
            let step = self.player.step();
            let pending = std::mem::take(&mut wants);
            let loaded = if self.link.is_multiplexed() {
                let (viewer, address) = (self.viewer, self.address.clone());
                let media = viewer.media(&mut media_link, &address, pending);
                tokio::join!(self.reload(step), media).0
            } else {
                self.viewer.media(&mut self.link, &self.address, pending).await;
                self.reload(step).await
            };
            match loaded {
                Reload::Loaded(new) => wants = new,
                Reload::Failed => self.player.failed(),
                Reload::Over(exit) => return exit,
            }
        }
    }

    async fn reload(&mut self, step: Step) -> Reload {
        let (directives, after) = match step {
            Step::Playlist { directives, after } => (directives, after),
            Step::Ended => return Reload::Over(Exit::Ended),
            Step::Restart { after } => return Reload::Over(Exit::Restart(after)),
        };
        if !after.is_zero() {
            tokio::time::sleep(after).await;
        }
        let viewer = self.viewer;
        let path = self.address.with_query(&directives.to_string());
        let result = match viewer.get(&mut self.link, &path, Sink::Text(&mut self.text)).await {
            Ok(reply) if reply.status != 200 => Err(ErrorKind::Status(reply.status)),
            Ok(reply) => {
                playlist::media(&self.text).map(|view| (reply, view)).map_err(|_| ErrorKind::BadPlaylist)
            }
            Err(kind) => Err(kind),
        };
        match result {
            Ok((reply, view)) => {
                let plan = self.player.loaded(&view);
                viewer.count(|tally| {
                    tally.playlists += 1;
                    if directives.is_blocking() {
                        tally.hold.record(reply.last_byte);
                    }
                    tally.errors_of(ErrorKind::Gap, plan.missed);
                    tally.errors_of(ErrorKind::Regression, plan.regressed.into());
                    tally.errors_of(ErrorKind::Unsatisfied, plan.unsatisfied.into());
                });
                Reload::Loaded(plan.wants)
            }
            Err(kind) => {
                viewer.count(|tally| tally.error(kind));
                Reload::Failed
            }
        }
    }
}

impl Drop for Rendition<'_> {
    fn drop(&mut self) {
        self.viewer.crowd.rendition_stops();
    }
}

/// How a reload went.
enum Reload {
    Loaded(Vec<Want>),
    Failed,
    Over(Exit),
}
