//! The database: SQLite by default, PostgreSQL when configured; the same statements for both.
//!
//! Tables: `journal` (reports as they came, until the state that they led to is written), `sessions`, `pieces` (everything
//! else of the state, by key) and `viewers`. Invariants: one writer; state and journal change in one transaction, so what is
//! read at a start is a state and the reports beyond it.

mod broken;
mod journal;
mod writing;

use crate::key::{Key, Place, Row, kind};
use crate::scope::Scope;
use crate::series::{Block, Resolution};
use crate::session::{Session, SessionId};
pub use journal::{Entry, Journalled};
use sigma_shared::id::ChannelId;
use sqlx::any::{AnyPoolOptions, AnyRow};
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool, AssertSqlSafe, Connection as _, Executor, Row as _};
use std::collections::HashMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Mutex;
use writing::{chunks, places, write_pieces, write_sessions, write_viewers};

/// Of the tables below, and of what is in them: an older version would not read it.
const VERSION: i64 = 2;
/// Connections: one that writes, and those that questions of the API read by.
const CONNECTIONS_MAX: u32 = 4;
/// Our lock among a PostgreSQL database's advisory locks.
const LOCK: i64 = 0x5167_6d61_4c69_7665;
/// How long a connection is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// SQLITE_CORRUPT and SQLITE_NOTADB.
const BROKEN: [u32; 2] = [11, 26];

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS version (version BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS journal (
  id BIGINT PRIMARY KEY, pop TEXT NOT NULL, received_ms BIGINT NOT NULL, report BLOB NOT NULL,
  settled TEXT NOT NULL DEFAULT '');
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

impl StoreError {
    /// Whether what is in a SQLite file is no database any more: a retry does not help.
    #[must_use]
    pub fn is_broken_file(&self) -> bool {
        let Self::Database(sqlx::Error::Database(error)) = self else { return false };
        // PostgreSQL's codes have five characters; of SQLite's the low byte is what happened, whatever it happened to.
        let code = error.code().filter(|code| code.len() < 5).and_then(|code| code.parse::<u32>().ok());
        code.is_some_and(|code| BROKEN.contains(&(code & 0xff)))
    }
}

/// Viewers of scopes, as they are written.
pub type ScopedViewers = Vec<(ChannelId, Scope, Vec<u64>)>;

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    url: Arc<str>,
    /// Another one after a broken file was set aside.
    pool: Arc<RwLock<AnyPool>>,
    is_sqlite: bool,
    /// Of SQLite.
    file: Option<Arc<Path>>,
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
        Ok(Self { file: Some(path.into()), ..Self::url(&format!("{url}?mode=rwc"))? })
    }

    /// A database by its URL, `postgres://…` or `sqlite://…`. It is connected to when it is first needed.
    ///
    /// # Errors
    /// It is not such a URL.
    pub fn url(url: &str) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let pool = Arc::new(RwLock::new(connections(url)?));
        let is_sqlite = is_sqlite(url);
        Ok(Self { url: url.into(), pool, is_sqlite, file: None, claim: Arc::default() })
    }

    fn pool(&self) -> AnyPool {
        self.pool.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets a SQLite file that is broken aside, with what belongs to it, and begins a new one. Returns where it is now; `None`:
    /// there is no such file.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub async fn replace_file(&self) -> Result<Option<PathBuf>, StoreError> {
        let Some(path) = self.file.clone() else { return Ok(None) };
        self.pool().close().await;
        let renamed = broken::set_aside(&path);
        *self.pool.write().unwrap_or_else(PoisonError::into_inner) = connections(&self.url)?;
        let failed = |source| StoreError::Folder { path: path.display().to_string(), source };
        renamed.map(Some).map_err(failed)
    }

    /// Claims the database, and makes the tables that are not there.
    ///
    /// # Errors
    /// The database cannot be reached, is another origin's, or is a newer version's.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        self.claim().await?;
        if self.is_sqlite {
            // The pool would try again and again, and not say why.
            let mut alone = AnyConnection::connect(&self.url).await?;
            set_up(&mut alone, true).await?;
            alone.close().await?;
        }
        let tables = if self.is_sqlite { TABLES.to_owned() } else { TABLES.replace("BLOB", "BYTEA") };
        let mut transaction = self.pool().begin().await?;
        for table in tables.split(';') {
            transaction.execute(AssertSqlSafe(table.to_owned())).await?;
        }
        if !self.journal_is_settled(&mut transaction).await? {
            // Versions that do not know of it leave it empty.
            transaction.execute("ALTER TABLE journal ADD COLUMN settled TEXT NOT NULL DEFAULT ''").await?;
        }
        let found = sqlx::query("SELECT version FROM version").fetch_optional(&mut *transaction).await?;
        match found.map(|row| row.try_get::<i64, _>(0)).transpose()? {
            Some(version) if version > VERSION => return Err(StoreError::Version(version)),
            Some(VERSION) => {}
            Some(_) => {
                let update = sqlx::query("UPDATE version SET version = $1").bind(VERSION);
                update.execute(&mut *transaction).await?;
            }
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
        let mut connection = self.pool().acquire().await?;
        let lock = sqlx::query("SELECT pg_try_advisory_lock($1)").bind(LOCK).fetch_one(&mut *connection);
        if !lock.await?.try_get::<bool, _>(0)? {
            return Err(StoreError::Taken);
        }
        *claim = Some(connection);
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
        let mut transaction = self.pool().begin().await?;
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

    /// Takes a piece that cannot be read out of the way: it stays, under a kind (of sessions, a channel) that begins with `!`.
    ///
    /// # Errors
    /// The database fails.
    pub async fn set_piece_aside(&self, key: &Key) -> Result<(), StoreError> {
        let mut transaction = self.pool().begin().await?;
        let statements = match key {
            Key::Session(..) => [
                "DELETE FROM sessions WHERE channel = '!' || $1 AND session = $2",
                "UPDATE sessions SET channel = '!' || $1 WHERE channel = $1 AND session = $2",
            ],
            _ => [
                "DELETE FROM pieces WHERE kind = '!' || $1 AND channel = $2 AND part = $3 AND at = $4",
                "UPDATE pieces SET kind = '!' || $1 WHERE kind = $1 AND channel = $2 AND part = $3 AND at = $4",
            ],
        };
        for statement in statements {
            let statement = match (key, key.place()) {
                (Key::Session(channel, session), _) => {
                    sqlx::query(statement).bind(channel.as_str()).bind(hex(session))
                }
                (_, Some(Place { kind, channel, part, at })) => {
                    sqlx::query(statement).bind(kind).bind(channel).bind(part).bind(at.cast_signed())
                }
                (_, None) => continue,
            };
            statement.execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Removes a piece.
    ///
    /// # Errors
    /// The database cannot be written to.
    pub async fn remove(&self, place: Place) -> Result<(), StoreError> {
        let Place { kind, channel, part, at } = place;
        let delete = "DELETE FROM pieces WHERE kind = $1 AND channel = $2 AND part = $3 AND at = $4";
        let delete = sqlx::query(delete).bind(kind).bind(channel).bind(part).bind(at.cast_signed());
        delete.execute(&self.pool()).await?;
        Ok(())
    }

    /// The values of keys; those that are not there are left out.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn load(&self, keys: &[Key]) -> Result<HashMap<Key, Vec<u8>>, StoreError> {
        let mut found = HashMap::with_capacity(keys.len());
        let mut sessions: HashMap<&ChannelId, Vec<SessionId>> = HashMap::new();
        let mut places_of = Vec::new();
        for key in keys {
            if let Key::Session(channel, session) = key {
                sessions.entry(channel).or_default().push(*session);
            }
            places_of.extend(key.place().map(|place| (key, place)));
        }
        for chunk in chunks(&places_of) {
            let row = |n: usize| {
                let at = 4 * n;
                format!(
                    "(CAST({n} AS BIGINT),${},${},${},CAST(${} AS BIGINT))",
                    at + 1,
                    at + 2,
                    at + 3,
                    at + 4
                )
            };
            let rows: Vec<String> = (0..chunk.len()).map(row).collect();
            // In this order, whatever SQLite thinks of how many there are: each is looked up by the primary key.
            let select = format!(
                "WITH wanted (n, kind, channel, part, at) AS (VALUES {}) SELECT w.n, p.value FROM wanted w CROSS JOIN \
                 pieces p WHERE p.kind = w.kind AND p.channel = w.channel AND p.part = w.part AND p.at = w.at",
                rows.join(",")
            );
            let mut select = sqlx::query(AssertSqlSafe(select));
            for (_, Place { kind, channel, part, at }) in chunk {
                select = select.bind(*kind).bind(channel.as_str()).bind(part.as_str()).bind(at.cast_signed());
            }
            for row in select.fetch_all(&self.pool()).await? {
                let n = usize::try_from(number(&row, 0)?).ok();
                if let Some((key, _)) = n.and_then(|n| chunk.get(n)) {
                    found.insert((*key).clone(), bytes(&row, 1));
                }
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
                for row in select.fetch_all(&self.pool()).await? {
                    if let Some(session) = unhex(&row.try_get::<String, _>(0)?) {
                        found.insert(Key::Session(channel.clone(), session), bytes(&row, 1));
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
        for row in select.fetch_all(&self.pool()).await? {
            let place = |row: &AnyRow| {
                Ok(Place { kind, channel: row.try_get(0)?, part: row.try_get(1)?, at: number(row, 2)? })
            };
            let place: Result<Place, sqlx::Error> = place(&row);
            match place.as_ref().ok().and_then(Key::at) {
                Some(key) => pieces.push((key, bytes(&row, 3))),
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
        for row in select.fetch_all(&self.pool()).await? {
            let text = |index| row.try_get::<String, _>(index).unwrap_or_default();
            let (Ok(channel), Some(scope)) = (text(0).parse(), Scope::parse(&text(1))) else { continue };
            let Ok(viewer) = number(&row, 2) else { continue };
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
        for row in select.fetch_all(&self.pool()).await? {
            blocks.extend(number(&row, 0).ok().zip(Block::decode(resolution, &bytes(&row, 1))));
        }
        Ok(blocks)
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
        for row in select.fetch_all(&self.pool()).await? {
            let id: String = row.try_get(0)?;
            sessions.extend(unhex(&id).zip(Session::decode(&bytes(&row, 1))));
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
            removed += delete.execute(&self.pool()).await?.rows_affected();
        }
        let delete =
            sqlx::query("DELETE FROM sessions WHERE touched_ms < $1").bind(sessions_ms.cast_signed());
        Ok(removed + delete.execute(&self.pool()).await?.rows_affected())
    }

    /// Forgets the viewers of a scope.
    ///
    /// # Errors
    /// The database cannot be written to.
    pub async fn forget_viewers(&self, channel: &ChannelId, scope: &Scope) -> Result<(), StoreError> {
        let delete = sqlx::query("DELETE FROM viewers WHERE channel = $1 AND scope = $2");
        delete.bind(channel.as_str()).bind(scope.text()).execute(&self.pool()).await?;
        Ok(())
    }

    /// Anything at all.
    #[cfg(test)]
    pub(crate) async fn execute(&self, statement: &'static str) -> Result<(), StoreError> {
        self.pool().execute(statement).await?;
        Ok(())
    }

    /// Closes all connections.
    pub async fn close(&self) {
        drop(self.claim.lock().await.take());
        self.pool().close().await;
    }
}

/// Kinds of pieces of which all are in memory.
pub const KINDS_IN_MEMORY: [&str; 3] = [kind::BROADCAST, kind::TOTALS, kind::POP];

fn is_sqlite(url: &str) -> bool {
    url.starts_with("sqlite:")
}

/// Connections, made when they are needed.
fn connections(url: &str) -> Result<AnyPool, sqlx::Error> {
    let is_sqlite = is_sqlite(url);
    let options = AnyPoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(PATIENCE);
    let pool = options.after_connect(move |connection, _| Box::pin(set_up(connection, is_sqlite)));
    pool.connect_lazy(url)
}

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

/// A value of ours. What is none, as somebody else wrote it, is nothing, which no value of ours is.
fn bytes(row: &AnyRow, index: usize) -> Vec<u8> {
    row.try_get(index).unwrap_or_default()
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
    fn an_id_is_read_as_it_was_written() {
        assert_eq!(unhex(&hex(&[7; 16])), Some([7; 16]));
        assert_eq!((unhex("xyz"), unhex(&"+".repeat(32))), (None, None));
    }
}
