//! From the database to memory: at a start, for a report, and what goes away with time.

use super::{Counters, Keeper, Setup, now_ms};
use crate::aggregate::{Aggregate, Corrupt, DAY_MS};
use crate::key::{Key, kind};
use crate::series::Resolution;
use crate::store::{KINDS_IN_MEMORY, Store, StoreError};
use sigma_report::report::{InvalidReport, Report};
use sigma_report::settled::Settled;
use sigma_shared::id::PopId;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::watch;

/// Reports of the journal that are read at once.
const JOURNAL_PAGE: i64 = 64;
/// How far back seconds are read at a start: somebody asks for the viewers of now.
const RECENT_MINUTES: u64 = 2;

/// The first minute of what is asked for as now.
pub(super) fn recent(now_ms: u64) -> u64 {
    (now_ms / 60_000).saturating_sub(RECENT_MINUTES)
}

impl From<InvalidReport> for StoreError {
    fn from(invalid: InvalidReport) -> Self {
        Self::Database(sqlx::Error::Decode(Box::new(invalid)))
    }
}

impl Keeper {
    pub(super) fn new(store: Store, setup: Setup, counters: Arc<Counters>) -> Self {
        Self {
            aggregate: Aggregate::new(setup.retention),
            store,
            setup,
            counters,
            is_whole: false,
            newest_id: 0,
            journal_bytes: 0,
            loaded: 0,
            written: Instant::now(),
            swept: None,
            gauges: watch::Sender::default(),
            available: watch::Sender::default(),
            closing: None,
        }
    }

    /// Reads the state, and applies what the journal has beyond it.
    pub(super) async fn reload(&mut self) -> Result<(), StoreError> {
        let now = now_ms();
        (self.is_whole, self.journal_bytes, self.loaded) = (false, 0, 0);
        self.store.prepare().await?;
        self.aggregate = Aggregate::new(self.setup.retention);
        for kind in KINDS_IN_MEMORY {
            for (key, value) in self.store.pieces(kind, 0).await? {
                self.put(&key, Some(&value), now).await?;
            }
        }
        for (channel, scope, viewers) in self.store.viewers().await? {
            self.aggregate.put_viewers(&channel, &scope, viewers.into_iter());
        }
        for (key, value) in self.store.pieces(Resolution::Second.name(), recent(now)).await? {
            self.put(&key, Some(&value), now).await?;
        }
        for source in &mut self.setup.channels {
            self.aggregate.channel(&source.id, source.grace_ms);
        }
        let mut applied: u64 = 0;
        loop {
            let page = self.store.journalled(applied, JOURNAL_PAGE).await?;
            let Some(last) = page.last().map(|last| last.id) else { break };
            for journalled in page {
                let report = Report::read(&journalled.report);
                let (Ok(report), Some(pop)) = (&report, &journalled.pop) else {
                    self.set_report_aside(journalled.id, report.err()).await?;
                    continue;
                };
                self.apply(pop, (report, journalled.settled), journalled.received_ms).await?;
                self.journal_bytes += journalled.report.len() as u64;
            }
            (applied, self.newest_id) = (last, self.newest_id.max(last));
        }
        // What a checkpoint that failed said of broadcast sessions is said again.
        self.setup.channels.iter_mut().for_each(|source| source.broadcasts.mark_changed());
        self.is_whole = true;
        self.available.send_replace(true);
        Ok(())
    }

    async fn set_report_aside(&self, id: u64, error: Option<InvalidReport>) -> Result<(), StoreError> {
        self.counters.invalid.fetch_add(1, Ordering::Relaxed);
        self.counters.set_aside.reports.fetch_add(1, Ordering::Relaxed);
        let error = error.map_or_else(|| "whose it is cannot be read".to_owned(), |error| error.to_string());
        tracing::error!(
            id,
            error,
            "a report in the journal cannot be read; it is set aside under its negative id, for a version that can"
        );
        self.store.set_report_aside(id).await
    }

    /// Takes a piece from the database. One that cannot be read is set aside and begins anew.
    async fn put(&mut self, key: &Key, value: Option<&[u8]>, now: u64) -> Result<(), StoreError> {
        let Err(Corrupt(_)) = self.aggregate.put(key, value, now) else { return Ok(()) };
        self.counters.set_aside.pieces.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            ?key,
            "a row of the statistics' database cannot be read: it is set aside, under a kind (of a session: a channel) that \
             begins with `!`, and what it counted begins anew; a backup of the database has what it was"
        );
        self.store.set_piece_aside(key).await?;
        if let Key::Broadcast(channel, start_ms) = key {
            self.aggregate.restore_broadcast(channel, *start_ms, now);
        } else if matches!(key, Key::Session(..) | Key::Traffic(..) | Key::Quality(..) | Key::Series(..)) {
            // Nothing is always read.
            let _ = self.aggregate.put(key, None, now);
        }
        Ok(())
    }

    /// Applies one report; whether it had not come before.
    pub(super) async fn apply(
        &mut self,
        pop: &PopId,
        (report, settled): (&Report, Option<Settled>),
        now: u64,
    ) -> Result<bool, StoreError> {
        let wanted = self.aggregate.wanted(pop, report, now)?;
        self.load(&wanted, now).await?;
        let absorbed = self.aggregate.absorb(pop, report, now)?;
        if let Some(settled) = settled {
            self.aggregate.hear_settled(pop, report.incarnation, settled);
        }
        let wanted = self.aggregate.wanted_for(&absorbed.added, now);
        self.load(&wanted, now).await?;
        self.aggregate.add(&absorbed.added, now);
        self.counters.refuse(absorbed.refusals);
        Ok(absorbed.is_new)
    }

    async fn load(&mut self, keys: &[Key], now: u64) -> Result<(), StoreError> {
        if keys.is_empty() {
            return Ok(());
        }
        let found = self.store.load(keys).await?;
        for key in keys {
            self.put(key, found.get(key).map(Vec::as_slice), now).await?;
        }
        self.loaded += keys.iter().filter(|key| !matches!(key, Key::Session(..))).count();
        Ok(())
    }

    /// Removes what is older than it is to be kept.
    pub(super) async fn sweep(&mut self) -> Result<(), StoreError> {
        let (now, retention) = (now_ms(), self.setup.retention);
        let since = |days: u64, unit_ms: u64| now.saturating_sub(days * DAY_MS) / unit_ms;
        // A day longer than reports of that time are taken.
        let seconds = since(retention.seconds_days + 1, 60_000);
        let kinds = [
            (kind::TRAFFIC, seconds),
            (kind::QUALITY, seconds),
            (Resolution::Second.name(), seconds),
            (Resolution::Minute.name(), since(retention.minutes_days, 3_600_000)),
            (Resolution::Hour.name(), since(retention.hours_days, DAY_MS)),
        ];
        let settled = self.aggregate.settle(now);
        if !settled.is_empty() {
            self.checkpoint().await?;
        }
        for (channel, scope) in settled {
            self.store.forget_viewers(&channel, &scope).await?;
        }
        let removed = self.store.sweep(&kinds, since(retention.sessions_days + 1, 1)).await?;
        if removed > 0 {
            tracing::debug!(removed, "statistics that are old enough are gone");
        }
        self.swept = Some(Instant::now());
        Ok(())
    }
}
