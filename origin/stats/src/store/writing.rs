//! Rows on their way into the database, many in one statement.

use super::{ScopedViewers, hex};
use crate::key::{Key, Row};
use sqlx::{Any, AssertSqlSafe, Transaction};

/// Rows of one statement; the sizes are few, so that statements are prepared once.
const CHUNKS: [usize; 3] = [128, 16, 1];

pub(super) async fn write_sessions(to: &mut Transaction<'_, Any>, rows: &[&Row]) -> Result<(), sqlx::Error> {
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

pub(super) async fn write_pieces(to: &mut Transaction<'_, Any>, rows: &[&Row]) -> Result<(), sqlx::Error> {
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

pub(super) async fn write_viewers(
    to: &mut Transaction<'_, Any>,
    viewers: &ScopedViewers,
) -> Result<(), sqlx::Error> {
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
pub(super) fn chunks<T>(mut list: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = CHUNKS.into_iter().find(|size| *size <= list.len())?;
        let (chunk, rest) = list.split_at(size);
        list = rest;
        Some(chunk)
    })
}

/// `($1,$2),($3,$4)`: rows of columns, numbered after `offset`.
pub(super) fn places(offset: usize, rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let columns = (1..=columns).map(|column| format!("${}", offset + row * columns + column));
        format!("({})", columns.collect::<Vec<_>>().join(","))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(",")
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
    }
}
