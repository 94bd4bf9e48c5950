//! Reports that are not acknowledged yet, on disk: what a process that is killed leaves for the next one.
//!
//! Every process has a folder of its own, named by its incarnation and locked while it lives; folders of processes that are
//! gone are taken over. A file is a sequence of records: length, CRC-32, incarnation, sequence (little-endian), report.
//! Records are only appended, and a file goes when all of its reports are settled.
//!
//! Invariants: a report that was kept is there again after any end of the process; an incarnation is greater than all that
//! were here before; bounded: when there is too much, the sessions of the oldest half are united into new reports, and the
//! originals keep the rest, so that nothing is counted twice should one have arrived; only what is still too much is given up,
//! and counted. Everything here blocks.

use super::compose::{Moment, Union};
use super::files::{Folder, Place};
use super::refused;
use bytes::Bytes;
use sigma_report::report::Report;
use sigma_report::settled::Settled;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Without a folder at most so much is kept.
const MEMORY_BYTES_MAX: u64 = 64 << 20;

/// In a report of this length there are hardly any sessions to unite with others'.
const SMALL_BYTES: u64 = 160;

/// So many reports may wait: five days of seconds. Each takes a line in memory.
const RECORDS_MAX: usize = 500_000;

/// A report's number: incarnation and sequence.
pub(crate) type Number = (u64, u64);

/// A report to send, as it is then.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) number: Number,
    pub(crate) bytes: Bytes,
    /// What will not be sent any more.
    pub(crate) settled: Settled,
}

/// Where a report is.
#[derive(Debug)]
enum Kept {
    Memory(Bytes),
    Disk { folder: u64, place: Place },
}

impl Kept {
    fn bytes(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Disk { place, .. } => u64::from(place.length),
        }
    }
}

/// What happened since somebody last asked.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Happened {
    /// Reports whose sessions were united with others'.
    pub(crate) aggregated: u64,
    /// Reports given up: for want of room, or unreadable.
    pub(crate) lost: u64,
    /// Reports that the disk did not take.
    pub(crate) unwritten: u64,
}

impl Happened {
    fn and(self, more: Self) -> Self {
        Self {
            aggregated: self.aggregated + more.aggregated,
            lost: self.lost + more.lost,
            unwritten: self.unwritten + more.unwritten,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Spool {
    root: Option<PathBuf>,
    /// The folder of this process that is written to.
    home: u64,
    incarnation: u64,
    sequence: u64,
    /// Nobody else has reports of this POP that are not settled.
    is_alone: bool,
    bytes_max: u64,
    records_max: usize,
    folders: BTreeMap<u64, Folder>,
    kept: BTreeMap<Number, Kept>,
    bytes: u64,
    happened: Happened,
    /// The disk takes nothing; what was asked about that has happened since.
    outage: Option<Happened>,
}

impl Spool {
    /// Opens a spool under `root`, or in memory.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub(crate) fn open(root: Option<&Path>, bytes_max: u64, now_ms: u64) -> io::Result<Self> {
        let bytes_max = if root.is_some() { bytes_max } else { bytes_max.min(MEMORY_BYTES_MAX) };
        let mut spool = Self {
            root: root.map(Path::to_path_buf),
            home: 0,
            incarnation: now_ms.max(1),
            sequence: 0,
            is_alone: false,
            bytes_max,
            records_max: RECORDS_MAX,
            folders: BTreeMap::new(),
            kept: BTreeMap::new(),
            bytes: 0,
            happened: Happened::default(),
            outage: None,
        };
        if let Some(root) = root {
            spool.move_to(Folder::create(root, now_ms.max(1))?);
            spool.adopt()?;
        }
        Ok(spool)
    }

    /// Goes on as another incarnation, because what is counted from now on is counted by another time.
    pub(crate) fn renew(&mut self, now_ms: u64) {
        let least = now_ms.max(self.incarnation + 1);
        (self.incarnation, self.sequence) = (least, 0);
        match self.root.as_ref().map(|root| Folder::create(root, least)) {
            Some(Ok(folder)) => self.move_to(folder),
            // On in the folder that there is.
            Some(Err(error)) => self.failed(&error),
            None => {}
        }
        self.remove_empty_folders();
    }

    fn move_to(&mut self, own: Folder) {
        (self.home, self.incarnation) = (own.incarnation, own.incarnation);
        self.folders.insert(own.incarnation, own);
    }

    /// The number of this process.
    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Takes over what processes left that are gone.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(crate) fn adopt(&mut self) -> io::Result<()> {
        let Some(root) = self.root.clone() else { return Ok(()) };
        self.is_alone = false;
        for incarnation in Folder::incarnations(&root)? {
            if incarnation >= self.incarnation || self.folders.contains_key(&incarnation) {
                continue;
            }
            let (mut folder, read) = match Folder::take_over(&root, incarnation) {
                Ok(Some(taken)) => taken,
                Ok(None) => continue,
                Err(error) => {
                    tracing::debug!(%error, incarnation, "a folder of reports cannot be taken over");
                    continue;
                }
            };
            self.happened.lost += read.broken;
            for (number, place) in read.records {
                if self.kept.contains_key(&number) {
                    folder.settle(place)?;
                    continue;
                }
                self.bytes += u64::from(place.length);
                self.kept.insert(number, Kept::Disk { folder: incarnation, place });
            }
            self.folders.insert(incarnation, folder);
        }
        // Whoever starts later is a later incarnation; whoever was there may have taken over what is older.
        let left = Folder::incarnations(&root)?;
        self.is_alone = left.iter().all(|incarnation| self.folders.contains_key(incarnation));
        self.remove_empty_folders();
        Ok(())
    }

    fn remove_empty_folders(&mut self) {
        let home = self.home;
        self.folders.retain(|incarnation, folder| *incarnation == home || !folder.remove_if_empty());
    }

    /// Numbers a report and keeps it. When the disk does not take it, it is kept in memory.
    pub(crate) fn append(&mut self, report: Report) {
        self.sequence += 1;
        let number = (self.incarnation, self.sequence);
        let moment = Moment {
            made_at_ms: report.made_at_ms,
            complete_before_ms: 0,
            complete_until_ms: 0,
            pop: report.pop.clone(),
        };
        let unwritten = self.happened.unwritten;
        self.keep(&Report { incarnation: number.0, sequence: number.1, ..report }, number);
        self.sync();
        if self.happened.unwritten == unwritten {
            self.works();
        }
        let many = self.kept.len() > self.records_max;
        if many || self.bytes > self.bytes_max {
            self.aggregate(many, &moment);
        }
    }

    fn sync(&mut self) {
        if let Err(error) = self.folders.get(&self.home).map_or(Ok(()), Folder::sync) {
            self.failed(&error);
        }
    }

    fn keep(&mut self, report: &Report, number: Number) {
        let Ok(bytes) = report.encode() else {
            self.happened.lost += 1;
            return;
        };
        self.bytes += bytes.len() as u64;
        let written = self.folders.get_mut(&self.home).map(|folder| folder.append(number, &bytes));
        let kept = match written {
            Some(Ok(place)) => Kept::Disk { folder: self.home, place },
            Some(Err(error)) => {
                self.failed(&error);
                Kept::Memory(bytes.into())
            }
            None => Kept::Memory(bytes.into()),
        };
        self.kept.insert(number, kept);
    }

    /// The disk did not take something. Said once, when it begins.
    fn failed(&mut self, error: &io::Error) {
        self.happened.unwritten += 1;
        if self.outage.is_none() {
            let folder = self.root.as_deref().unwrap_or(Path::new(""));
            tracing::error!(
                %error, folder = %folder.display(),
                "the disk takes no reports: they are kept in memory until it does"
            );
            self.outage = Some(Happened::default());
        }
    }

    fn works(&mut self) {
        if let Some(before) = self.outage.take() {
            let Happened { unwritten, aggregated, lost } = before.and(self.happened);
            tracing::info!(unwritten, aggregated, lost, "the disk takes reports again");
        }
    }

    /// Whether the disk took nothing lately.
    pub(crate) fn is_failing(&self) -> bool {
        self.outage.is_some()
    }

    /// How many reports, and bytes of them, are not settled.
    pub(crate) fn backlog(&self) -> (u64, u64) {
        (self.kept.len() as u64, self.bytes)
    }

    /// What happened since the last call.
    pub(crate) fn happened(&mut self) -> Happened {
        let happened = std::mem::take(&mut self.happened);
        self.outage = self.outage.map(|before| before.and(happened));
        happened
    }

    /// A report to send: the newest one, if it is newer than `newest_sent`, or else the oldest.
    pub(crate) fn next(&mut self, newest_sent: Number) -> Option<Outgoing> {
        loop {
            let newest = *self.kept.last_key_value()?.0;
            let number = if newest > newest_sent { newest } else { *self.kept.first_key_value()?.0 };
            match self.read(number) {
                Some(bytes) => return Some(Outgoing { number, bytes, settled: self.settled(number) }),
                None => {
                    // Deleted by somebody else, or the disk fails: it cannot be had any more.
                    self.happened.lost += 1;
                    self.settle(number);
                }
            }
        }
    }

    /// What will not be sent any more, in the words of a report that is still to be acknowledged. Without a folder, or beside
    /// another process, nobody knows of other incarnations.
    fn settled(&self, (incarnation, sequence): Number) -> Settled {
        let lowest = self.kept.range((incarnation, 0)..).next();
        let oldest = self.kept.first_key_value().filter(|_| self.is_alone);
        Settled {
            sequence: lowest.map_or(sequence, |((_, lowest), _)| *lowest),
            oldest: oldest.map(|((oldest, _), _)| *oldest),
        }
    }

    fn read(&self, number: Number) -> Option<Bytes> {
        match self.kept.get(&number)? {
            Kept::Memory(bytes) => Some(bytes.clone()),
            Kept::Disk { folder, place } => self.folders.get(folder)?.read(*place).ok(),
        }
    }

    /// A report is acknowledged, or cannot be had any more.
    pub(crate) fn settle(&mut self, number: Number) {
        let Some(kept) = self.kept.remove(&number) else { return };
        self.bytes -= kept.bytes();
        let Kept::Disk { folder, place } = kept else { return };
        let settled = self.folders.get_mut(&folder).map(|folder| folder.settle(place));
        if let Some(Err(error)) = settled.filter(|_| !self.is_failing()) {
            tracing::warn!(%error, "a file of acknowledged reports cannot be deleted; they will be sent again");
        }
        self.remove_empty_folders();
    }

    /// A report will never be acknowledged: it is set aside for people. Returns where it is, if it could be kept.
    pub(crate) fn refuse(&mut self, number: Number) -> Option<PathBuf> {
        let report = self.read(number)?;
        let set_aside = self.root.as_ref().map(|root| refused::set_aside(root, number, &report));
        self.settle(number);
        match set_aside? {
            Ok(path) => path,
            Err(error) => {
                self.failed(&error);
                None
            }
        }
    }

    /// The oldest reports: at least half of the bytes, or `many`, half of the reports.
    fn oldest(&self, many: bool) -> Vec<Number> {
        let (mut taken, mut count) = (0, 0);
        let chosen = self.kept.iter().filter(|(_, kept)| many || kept.bytes() > SMALL_BYTES);
        let chosen = chosen.take_while(|(_, kept)| {
            let more = if many { count < self.records_max / 2 } else { taken < self.bytes_max / 2 };
            taken += kept.bytes();
            count += 1;
            more
        });
        chosen.map(|(number, _)| *number).collect()
    }

    /// Makes room: unites the sessions of the oldest reports.
    fn aggregate(&mut self, many: bool, moment: &Moment) {
        let oldest = self.oldest(many);
        let mut union = Union::default();
        let mut shells = Vec::with_capacity(oldest.len());
        for number in &oldest {
            let read = self.read(*number).and_then(|bytes| Report::read(&bytes).ok());
            match read {
                Some(mut report) => {
                    union.take(&mut report);
                    shells.push(report);
                    self.happened.aggregated += 1;
                }
                None => self.happened.lost += 1,
            }
        }
        // The new ones are on disk before the old ones go: what ends in between is told twice.
        for report in union.reports(moment) {
            self.sequence += 1;
            let number = (self.incarnation, self.sequence);
            self.keep(&Report { incarnation: number.0, sequence: number.1, ..report }, number);
        }
        let old: Vec<_> = oldest.iter().filter_map(|number| self.kept.remove_entry(number)).collect();
        for shell in &shells {
            self.keep(shell, (shell.incarnation, shell.sequence));
        }
        self.sync();
        for (_, kept) in old {
            self.bytes -= kept.bytes();
            if let Kept::Disk { folder, place } = kept {
                // What cannot be deleted is sent again after a restart, and changes nothing.
                let _ = self.folders.get_mut(&folder).map(|folder| folder.settle(place));
            }
        }
        self.give_up(many);
        self.remove_empty_folders();
    }

    /// The last resort: the oldest ones go until there is room. Of `many`, their sessions are in younger ones by now.
    fn give_up(&mut self, many: bool) {
        let records_max = if many { self.records_max / 4 * 3 } else { usize::MAX };
        while (self.bytes > self.bytes_max || self.kept.len() > records_max)
            && let Some(oldest) = self.kept.first_key_value().map(|(number, _)| *number)
        {
            self.happened.lost += 1;
            self.settle(oldest);
        }
    }
}

#[cfg(test)]
mod tests;
