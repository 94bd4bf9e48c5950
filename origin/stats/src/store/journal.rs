//! The journal: reports as they came, with what was said with them, until the state that they led to is written.

use super::{Store, StoreError, bytes, number};
use sigma_report::settled::Settled;
use sigma_shared::id::PopId;
use sqlx::{AnyConnection, Row as _};

/// A report for the journal.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its number: greater than all before.
    pub id: u64,
    /// Who reports.
    pub pop: &'a PopId,
    /// When, Unix milliseconds.
    pub received_ms: u64,
    /// The report as it came.
    pub report: &'a [u8],
    /// What was said with it.
    pub settled: Option<Settled>,
}

/// A report in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journalled {
    /// Its number: they only go up.
    pub id: u64,
    /// Who reported. `None`: that cannot be read.
    pub pop: Option<PopId>,
    /// When, Unix milliseconds.
    pub received_ms: u64,
    /// The report as it came; nothing when it cannot be read.
    pub report: Vec<u8>,
    /// What was said with it, if anything that can be read.
    pub settled: Option<Settled>,
}

impl Store {
    /// Whether the journal has a column for what was said with a report: it did not always.
    pub(super) async fn journal_is_settled(
        &self,
        connection: &mut AnyConnection,
    ) -> Result<bool, StoreError> {
        let columns = if self.is_sqlite {
            "SELECT 1 FROM pragma_table_info('journal') WHERE name = 'settled'"
        } else {
            "SELECT 1 FROM pg_attribute WHERE attrelid = 'journal'::regclass AND attname = 'settled'"
        };
        Ok(sqlx::query(columns).fetch_optional(connection).await?.is_some())
    }

    /// Adds reports to the journal: when this returns they are on disk.
    ///
    /// # Errors
    /// They are not.
    pub async fn journal(&self, reports: &[Entry<'_>]) -> Result<(), StoreError> {
        let mut transaction = self.pool().begin().await?;
        for Entry { id, pop, received_ms, report, settled } in reports {
            let insert =
                "INSERT INTO journal (id, pop, received_ms, report, settled) VALUES ($1, $2, $3, $4, $5)";
            let insert = sqlx::query(insert).bind(id.cast_signed()).bind(pop.as_str());
            let settled = settled.map_or_else(String::new, |settled| settled.to_string());
            let insert = insert.bind(received_ms.cast_signed()).bind(*report).bind(settled);
            insert.execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Takes a report that cannot be read out of the journal's way: it stays, under its negative number.
    ///
    /// # Errors
    /// The database fails.
    pub async fn set_report_aside(&self, id: u64) -> Result<(), StoreError> {
        sqlx::query("UPDATE journal SET id = -id WHERE id = $1")
            .bind(id.cast_signed())
            .execute(&self.pool())
            .await?;
        Ok(())
    }

    /// The next reports in the journal beyond a number, in order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn journalled(&self, beyond: u64, at_most: i64) -> Result<Vec<Journalled>, StoreError> {
        let select =
            "SELECT id, pop, received_ms, report, settled FROM journal WHERE id > $1 ORDER BY id LIMIT $2";
        let rows =
            sqlx::query(select).bind(beyond.cast_signed()).bind(at_most).fetch_all(&self.pool()).await?;
        let mut reports = Vec::new();
        for row in rows {
            reports.push(Journalled {
                id: number(&row, 0)?,
                pop: row.try_get::<String, _>(1).ok().and_then(|pop| pop.parse().ok()),
                received_ms: number(&row, 2).unwrap_or(0),
                report: bytes(&row, 3),
                settled: row.try_get::<String, _>(4).ok().and_then(|settled| settled.parse().ok()),
            });
        }
        Ok(reports)
    }
}
