//! The database: SQLite by default, PostgreSQL when configured; the same statements for both.
//!
//! Tables: `journal` (reports as they came, until the state that they led to is written), `sessions`, `pieces` (everything
//! else of the state, by key) and `viewers`. Invariants: one writer; state and journal change in one transaction, so what is
//! read at a start is a state and the reports beyond it.

use crate::key::{Key, Place, Row, kind};
use crate::scope::Scope;
use crate::series::{Block, Resolution};
use crate::session::{Session, SessionId};
use sigma_shared::id::{ChannelId, PopId};
use sqlx::any::{AnyPoolOptions, AnyRow};
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool, AssertSqlSafe, Connection as _, Executor, Row as _, Transaction};
use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// Of the tables below.
const VERSION: i64 = 1;
/// Connections: one that writes, and those that questions of the API read by.
const CONNECTIONS_MAX: u32 = 4;
/// Our lock among a PostgreSQL database's advisory locks.
const LOCK: i64 = 0x5167_6d61_4c69_7665;
/// How long a connection is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Rows of one statement; the sizes are few, so that statements are prepared once.
const CHUNKS: [usize; 3] = [128, 16, 1];

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS version (version BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS journal (
  id BIGINT PRIMARY KEY, pop TEXT NOT NULL, received_ms BIGINT NOT NULL, report BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS sessions (
  channel TEXT NOT NULL, session TEXT NOT NULL, touched_ms BIGINT NOT NULL, value BLOB NOT NULL,
  PRIMARY KEY (channel, session));
CREATE TABLE IF NOT EXISTS pieces (
  kind TEXT NOT NULL, channel TEXT NOT NULL, part TEXT NOT NULL, at BIGINT NOT NULL, value BLOB NOT NULL,
  PRIMARY KEY (kind, channel, part, at));
CREATE TABLE IF NOT EXISTS viewers (
  channel TEXT NOT NULL, scope TEXT NOT NULL, viewer BIGINT NOT NULL,
  PRIMARY KEY (channel, scope, viewer))";

/// Why the database does not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is not there, full or broken. A retry may help.
    #[error("the statistics' database: {0}")]
    Database(#[from] sqlx::Error),
    /// A newer version wrote it.
    #[error(
        "the statistics' database has version {0}, known here is {VERSION}: run the newer version that wrote it"
    )]
    Version(i64),
    /// The operator's to mend.
    #[error("the statistics' database is in use by another origin: every origin needs one of its own")]
    Taken,
    /// The folder of the file cannot be made.
    #[error("{path}: {source}")]
    Folder {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// A report in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journalled {
    /// Its number: they only go up.
    pub id: u64,
    /// Who reported.
    pub pop: PopId,
    /// When, Unix milliseconds.
    pub received_ms: u64,
    /// The report as it came.
    pub report: Vec<u8>,
}

/// Viewers of scopes, as they are written.
pub type ScopedViewers = Vec<(ChannelId, Scope, Vec<u64>)>;

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    pool: AnyPool,
    is_sqlite: bool,
    /// The connection whose lock says that a PostgreSQL database is ours; a SQLite file is in a folder that is.
    claim: Arc<Mutex<Option<PoolConnection<Any>>>>,
}

impl Store {
    /// A SQLite file, made when it is first needed.
    ///
    /// # Errors
    /// Its folder cannot be made.
    pub fn file(path: &Path) -> Result<Self, StoreError> {
        if let Some(folder) = path.parent() {
            let failed = |source| StoreError::Folder { path: folder.display().to_string(), source };
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut url = "sqlite://".to_owned();
        for byte in path.as_os_str().as_encoded_bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                    url.push(char::from(*byte));
                }
                // Writing to a string cannot fail.
                _ => drop(write!(url, "%{byte:02X}")),
            }
        }
        Self::url(&format!("{url}?mode=rwc"))
    }

    /// A database by its URL, `postgres://…` or `sqlite://…`. It is connected to when it is first needed.
    ///
    /// # Errors
    /// It is not such a URL.
    pub fn url(url: &str) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let is_sqlite = url.starts_with("sqlite:");
        let options = AnyPoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(PATIENCE);
        let pool = options.after_connect(move |connection, _| Box::pin(set_up(connection, is_sqlite)));
        Ok(Self { pool: pool.connect_lazy(url)?, is_sqlite, claim: Arc::default() })
    }

    /// Claims the database, and makes the tables that are not there.
    ///
    /// # Errors
    /// The database cannot be reached, is another origin's, or is a newer version's.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        self.claim().await?;
        let tables = if self.is_sqlite { TABLES.to_owned() } else { TABLES.replace("BLOB", "BYTEA") };
        let mut transaction = self.pool.begin().await?;
        for table in tables.split(';') {
            transaction.execute(AssertSqlSafe(table.to_owned())).await?;
        }
        let found = sqlx::query("SELECT version FROM version").fetch_optional(&mut *transaction).await?;
        match found.map(|row| row.try_get::<i64, _>(0)).transpose()? {
            Some(version) if version > VERSION => return Err(StoreError::Version(version)),
            Some(_) => {}
            None => {
                let insert = sqlx::query("INSERT INTO version (version) VALUES ($1)").bind(VERSION);
                insert.execute(&mut *transaction).await?;
            }
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Two origins that write one state would spoil it. The lock ends with its connection, so with this process.
    async fn claim(&self) -> Result<(), StoreError> {
        let mut claim = self.claim.lock().await;
        if self.is_sqlite {
            return Ok(());
        }
        if let Some(connection) = claim.as_mut()
            && connection.ping().await.is_ok()
        {
            return Ok(());
        }
        // A connection that broke has lost its lock.
        if let Some(broken) = claim.take() {
            drop(broken.detach());
        }
        let mut connection = self.pool.acquire().await?;
        let lock = sqlx::query("SELECT pg_try_advisory_lock($1)").bind(LOCK).fetch_one(&mut *connection);
        if !lock.await?.try_get::<bool, _>(0)? {
            return Err(StoreError::Taken);
        }
        *claim = Some(connection);
        Ok(())
    }

    /// Adds reports to the journal: when this returns they are on disk.
    ///
    /// # Errors
    /// They are not.
    pub async fn journal(&self, reports: &[(u64, &PopId, u64, &[u8])]) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        for (id, pop, received_ms, report) in reports {
            let insert = "INSERT INTO journal (id, pop, received_ms, report) VALUES ($1, $2, $3, $4)";
            let insert = sqlx::query(insert).bind(id.cast_signed()).bind(pop.as_str());
            insert.bind(received_ms.cast_signed()).bind(*report).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Writes what changed, and forgets the journal up to a number: that is in it.
    ///
    /// # Errors
    /// Nothing was written.
    pub async fn checkpoint(
        &self,
        rows: &[Row],
        viewers: &ScopedViewers,
        journal_until: u64,
    ) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        let (sessions, pieces): (Vec<&Row>, Vec<&Row>) =
            rows.iter().partition(|row| matches!(row.key, Key::Session(..)));
        write_sessions(&mut transaction, &sessions).await?;
        write_pieces(&mut transaction, &pieces).await?;
        write_viewers(&mut transaction, viewers).await?;
        let delete =
            sqlx::query("DELETE FROM journal WHERE id > 0 AND id <= $1").bind(journal_until.cast_signed());
        delete.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Takes a report that cannot be read out of the journal's way: it stays, under its negative number.
    ///
    /// # Errors
    /// The database fails.
    pub async fn set_aside(&self, id: u64) -> Result<(), StoreError> {
        sqlx::query("UPDATE journal SET id = -id WHERE id = $1")
            .bind(id.cast_signed())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The next reports in the journal beyond a number, in order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn journalled(&self, beyond: u64, at_most: i64) -> Result<Vec<Journalled>, StoreError> {
        let select = "SELECT id, pop, received_ms, report FROM journal WHERE id > $1 ORDER BY id LIMIT $2";
        let rows = sqlx::query(select).bind(beyond.cast_signed()).bind(at_most).fetch_all(&self.pool).await?;
        let mut reports = Vec::new();
        for row in rows {
            let pop: String = row.try_get(1)?;
            reports.push(Journalled {
                id: number(&row, 0)?,
                pop: pop.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
                received_ms: number(&row, 2)?,
                report: row.try_get(3)?,
            });
        }
        Ok(reports)
    }

    /// The values of keys; those that are not there are left out.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn load(&self, keys: &[Key]) -> Result<HashMap<Key, Vec<u8>>, StoreError> {
        let mut found = HashMap::with_capacity(keys.len());
        let mut sessions: HashMap<&ChannelId, Vec<SessionId>> = HashMap::new();
        for key in keys {
            if let Key::Session(channel, session) = key {
                sessions.entry(channel).or_default().push(*session);
            }
            let Some(place) = key.place() else { continue };
            let select =
                "SELECT value FROM pieces WHERE kind = $1 AND channel = $2 AND part = $3 AND at = $4";
            let select = sqlx::query(select).bind(place.kind).bind(place.channel).bind(place.part);
            if let Some(row) = select.bind(place.at.cast_signed()).fetch_optional(&self.pool).await? {
                found.insert(key.clone(), row.try_get(0)?);
            }
        }
        for (channel, sessions) in sessions {
            for chunk in chunks(&sessions) {
                let select = format!(
                    "SELECT session, value FROM sessions WHERE channel = $1 AND session IN ({})",
                    places(1, chunk.len(), 1).replace(['(', ')'], "")
                );
                let mut select = sqlx::query(AssertSqlSafe(select)).bind(channel.as_str());
                for session in chunk {
                    select = select.bind(hex(session));
                }
                for row in select.fetch_all(&self.pool).await? {
                    if let Some(session) = unhex(&row.try_get::<String, _>(0)?) {
                        found.insert(Key::Session(channel.clone(), session), row.try_get(1)?);
                    }
                }
            }
        }
        Ok(found)
    }

    /// All pieces of a kind that are not older than `from`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn pieces(&self, kind: &'static str, from: u64) -> Result<Vec<(Key, Vec<u8>)>, StoreError> {
        let select = "SELECT channel, part, at, value FROM pieces WHERE kind = $1 AND at >= $2";
        let select = sqlx::query(select).bind(kind).bind(from.cast_signed());
        let mut pieces = Vec::new();
        for row in select.fetch_all(&self.pool).await? {
            let place = Place { kind, channel: row.try_get(0)?, part: row.try_get(1)?, at: number(&row, 2)? };
            match Key::at(&place) {
                Some(key) => pieces.push((key, row.try_get(3)?)),
                None => tracing::warn!(?place, "the statistics' database has a row that nobody knows"),
            }
        }
        Ok(pieces)
    }

    /// The viewers of all scopes.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn viewers(&self) -> Result<ScopedViewers, StoreError> {
        let select = sqlx::query("SELECT channel, scope, viewer FROM viewers ORDER BY channel, scope");
        let mut viewers: ScopedViewers = Vec::new();
        for row in select.fetch_all(&self.pool).await? {
            let (channel, scope): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let (Ok(channel), Some(scope)) = (channel.parse(), Scope::parse(&scope)) else { continue };
            let viewer = number(&row, 2)?;
            match viewers.last_mut().filter(|last| (&last.0, &last.1) == (&channel, &scope)) {
                Some(last) => last.2.push(viewer),
                None => viewers.push((channel, scope, vec![viewer])),
            }
        }
        Ok(viewers)
    }

    /// Blocks of a series, by number.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn blocks(
        &self,
        channel: &ChannelId,
        scope: &Scope,
        (resolution, numbers): (Resolution, std::ops::RangeInclusive<u64>),
    ) -> Result<Vec<(u64, Block)>, StoreError> {
        let select = "SELECT at, value FROM pieces \
                      WHERE kind = $1 AND channel = $2 AND part = $3 AND at >= $4 AND at <= $5";
        let select = sqlx::query(select).bind(resolution.name()).bind(channel.as_str()).bind(scope.text());
        let select = select.bind(numbers.start().cast_signed()).bind(numbers.end().cast_signed());
        let mut blocks = Vec::new();
        for row in select.fetch_all(&self.pool).await? {
            let value: Vec<u8> = row.try_get(1)?;
            blocks.extend(Block::decode(resolution, &value).map(|block| (row.try_get::<i64, _>(0), block)));
        }
        blocks.into_iter().map(|(at, block)| Ok((at?.cast_unsigned(), block))).collect()
    }

    /// Sessions of a channel in the order of their ids, beyond one.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn sessions(
        &self,
        channel: &ChannelId,
        beyond: Option<SessionId>,
        at_most: u32,
    ) -> Result<Vec<(SessionId, Session)>, StoreError> {
        let select = "SELECT session, value FROM sessions WHERE channel = $1 AND session > $2 \
                      ORDER BY session LIMIT $3";
        let beyond = beyond.map(|session| hex(&session)).unwrap_or_default();
        let select = sqlx::query(select).bind(channel.as_str()).bind(beyond).bind(i64::from(at_most));
        let mut sessions = Vec::new();
        for row in select.fetch_all(&self.pool).await? {
            let (id, value): (String, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
            sessions.extend(unhex(&id).zip(Session::decode(&value)));
        }
        Ok(sessions)
    }

    /// Removes what is older than it is to be kept: pieces of a kind by number, sessions by when they were touched.
    ///
    /// # Errors
    /// The database cannot be written to.
    pub async fn sweep(&self, kinds: &[(&'static str, u64)], sessions_ms: u64) -> Result<u64, StoreError> {
        let mut removed = 0;
        for (kind, from) in kinds {
            let delete = sqlx::query("DELETE FROM pieces WHERE kind = $1 AND at < $2");
            let delete = delete.bind(*kind).bind(from.cast_signed());
            removed += delete.execute(&self.pool).await?.rows_affected();
        }
        let delete =
            sqlx::query("DELETE FROM sessions WHERE touched_ms < $1").bind(sessions_ms.cast_signed());
        Ok(removed + delete.execute(&self.pool).await?.rows_affected())
    }

    /// Forgets the viewers of a scope.
    ///
    /// # Errors
    /// The database cannot be written to.
    pub async fn forget_viewers(&self, channel: &ChannelId, scope: &Scope) -> Result<(), StoreError> {
        let delete = sqlx::query("DELETE FROM viewers WHERE channel = $1 AND scope = $2");
        delete.bind(channel.as_str()).bind(scope.text()).execute(&self.pool).await?;
        Ok(())
    }

    /// Anything at all.
    #[cfg(test)]
    pub(crate) async fn execute(&self, statement: &'static str) -> Result<(), StoreError> {
        self.pool.execute(statement).await?;
        Ok(())
    }

    /// Closes all connections.
    pub async fn close(&self) {
        drop(self.claim.lock().await.take());
        self.pool.close().await;
    }
}

/// Kinds of pieces of which all are in memory.
pub const KINDS_IN_MEMORY: [&str; 3] = [kind::BROADCAST, kind::TOTALS, kind::POP];

async fn set_up(connection: &mut AnyConnection, is_sqlite: bool) -> Result<(), sqlx::Error> {
    if is_sqlite {
        // A commit is on disk when it returns; readers and the writer do not wait for each other.
        for pragma in ["PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "PRAGMA busy_timeout = 5000"]
        {
            connection.execute(pragma).await?;
        }
    }
    Ok(())
}

async fn write_sessions(to: &mut Transaction<'_, Any>, rows: &[&Row]) -> Result<(), sqlx::Error> {
    for chunk in chunks(rows) {
        let insert = format!(
            "INSERT INTO sessions (channel, session, touched_ms, value) VALUES {} ON CONFLICT (channel, session) \
             DO UPDATE SET touched_ms = excluded.touched_ms, value = excluded.value",
            places(0, chunk.len(), 4)
        );
        let mut insert = sqlx::query(AssertSqlSafe(insert));
        for row in chunk {
            let Key::Session(channel, session) = &row.key else { continue };
            insert = insert.bind(channel.as_str()).bind(hex(session));
            insert = insert.bind(row.touched_ms.cast_signed()).bind(row.value.as_slice());
        }
        insert.execute(&mut **to).await?;
    }
    Ok(())
}

async fn write_pieces(to: &mut Transaction<'_, Any>, rows: &[&Row]) -> Result<(), sqlx::Error> {
    for chunk in chunks(rows) {
        let insert = format!(
            "INSERT INTO pieces (kind, channel, part, at, value) VALUES {} \
             ON CONFLICT (kind, channel, part, at) DO UPDATE SET value = excluded.value",
            places(0, chunk.len(), 5)
        );
        let mut insert = sqlx::query(AssertSqlSafe(insert));
        for row in chunk {
            let Some(place) = row.key.place() else { continue };
            insert = insert.bind(place.kind).bind(place.channel).bind(place.part);
            insert = insert.bind(place.at.cast_signed()).bind(row.value.as_slice());
        }
        insert.execute(&mut **to).await?;
    }
    Ok(())
}

async fn write_viewers(to: &mut Transaction<'_, Any>, viewers: &ScopedViewers) -> Result<(), sqlx::Error> {
    for (channel, scope, viewers) in viewers {
        for chunk in chunks(viewers) {
            let insert = format!(
                "INSERT INTO viewers (channel, scope, viewer) VALUES {} \
                 ON CONFLICT (channel, scope, viewer) DO NOTHING",
                places(0, chunk.len(), 3)
            );
            let mut insert = sqlx::query(AssertSqlSafe(insert));
            for viewer in chunk {
                insert = insert.bind(channel.as_str()).bind(scope.text()).bind(viewer.cast_signed());
            }
            insert.execute(&mut **to).await?;
        }
    }
    Ok(())
}

/// Cuts a list into pieces of few sizes.
fn chunks<T>(mut list: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = CHUNKS.into_iter().find(|size| *size <= list.len())?;
        let (chunk, rest) = list.split_at(size);
        list = rest;
        Some(chunk)
    })
}

/// `($1,$2),($3,$4)`: rows of columns, numbered after `offset`.
fn places(offset: usize, rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let columns = (1..=columns).map(|column| format!("${}", offset + row * columns + column));
        format!("({})", columns.collect::<Vec<_>>().join(","))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(",")
}

fn number(row: &AnyRow, index: usize) -> Result<u64, sqlx::Error> {
    row.try_get::<i64, _>(index).map(i64::cast_unsigned)
}

/// A session's id in hexadecimal digits.
#[must_use]
pub fn hex(session: &SessionId) -> String {
    let mut digits = String::with_capacity(32);
    for byte in session {
        // Writing to a string cannot fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

/// A session's id from 32 hexadecimal digits.
#[must_use]
pub fn unhex(digits: &str) -> Option<SessionId> {
    (digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
        .then(|| u128::from_str_radix(digits, 16).ok().map(u128::to_be_bytes))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_cut_without_loss() {
        let list: Vec<u32> = (0..300).collect();
        let sizes: Vec<usize> = chunks(&list).map(<[u32]>::len).collect();
        assert_eq!(sizes, [&[128, 128, 16, 16][..], &[1; 12]].concat());
        assert_eq!(chunks(&list).flatten().copied().collect::<Vec<_>>(), list);
        assert_eq!(places(1, 2, 2), "($2,$3),($4,$5)");
        assert_eq!(unhex(&hex(&[7; 16])), Some([7; 16]));
        assert_eq!((unhex("xyz"), unhex(&"+".repeat(32))), (None, None));
    }
}
