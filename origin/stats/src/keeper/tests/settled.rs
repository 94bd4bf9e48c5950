//! What a POP says that it will not send: nobody waits for it.

use super::*;

/// A report, with what was said with it.
fn posted(sequence: u64, base_ms: u64, settled: &str) -> Posted {
    Posted { bytes: bytes(&report(sequence, base_ms)), settled: settled.parse().ok() }
}

async fn final_until(kept: &Kept, now_ms: u64) -> u64 {
    let asked = kept.stats.ask(move |aggregate| aggregate.final_until_ms(now_ms, 3_600_000)).await;
    asked.expect("answered")
}

#[tokio::test]
async fn an_edge_that_outlives_the_database_holds_nothing_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let base_ms = now_ms() - 60_000;
    let kept = start(folder.path());
    // The ones before went to a file that is no more, or to another origin.
    kept.stats.report(pop(), posted(5, base_ms, "")).await.expect("taken");
    let now_ms = base_ms + 20_000;
    assert_eq!(final_until(&kept, now_ms).await, now_ms - 3_600_000);
    kept.stats.report(pop(), posted(9, base_ms, "9;oldest=2")).await.expect("taken");
    assert_eq!(
        final_until(&kept, now_ms).await,
        now_ms - 3_600_000,
        "of a later incarnation: it is not true"
    );
    kept.stats.report(pop(), posted(7, base_ms, "6")).await.expect("taken");
    assert_eq!(final_until(&kept, now_ms).await, base_ms + 5000, "8 is still to come");
    kept.stats.report(pop(), posted(9, base_ms, "9")).await.expect("taken");
    assert_eq!(final_until(&kept, now_ms).await, base_ms + 9000);
    // As a kill leaves it, and as a checkpoint does.
    let killed = tempfile::tempdir().expect("a folder");
    copy(folder.path(), killed.path());
    let again = start(killed.path());
    assert_eq!(final_until(&again, now_ms).await, base_ms + 9000);
    again.stop().await;
    let again = start(killed.path());
    assert_eq!(final_until(&again, now_ms).await, base_ms + 9000);
    again.stop().await;
    // What comes all the same is counted.
    let before = kept.summary(base_ms).await.totals.bytes;
    kept.stats.report(pop(), posted(2, base_ms, "2")).await.expect("taken");
    assert_eq!(kept.summary(base_ms).await.totals.bytes, before + 1000);
    assert_eq!(final_until(&kept, now_ms).await, base_ms + 9000);
    kept.stop().await;
}

#[tokio::test]
async fn a_journal_of_before_is_read_and_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let base_ms = now_ms() - 60_000;
    let old = store(folder.path());
    old.prepare().await.expect("made");
    old.execute("ALTER TABLE journal DROP COLUMN settled").await.expect("dropped");
    let hex: String = bytes(&report(1, base_ms)).iter().map(|byte| format!("{byte:02x}")).collect();
    let insert = format!(
        "INSERT INTO journal (id, pop, received_ms, report) VALUES (1, 'pop-1', {base_ms}, x'{hex}')"
    );
    old.execute(Box::leak(insert.into_boxed_str())).await.expect("written");
    old.close().await;
    let kept = start(folder.path());
    kept.stats.report(pop(), posted(3, base_ms, "3")).await.expect("taken");
    assert_eq!(kept.summary(base_ms).await.totals.bytes, 2000);
    assert_eq!(final_until(&kept, base_ms + 20_000).await, base_ms + 3000);
    kept.stop().await;
}
