//! The same on PostgreSQL: a cluster of its own, in a folder of its own, on a Unix socket.

use super::*;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A cluster that runs.
struct Cluster {
    folder: TempDir,
    binaries: PathBuf,
}

/// Who may run it: PostgreSQL refuses to be root.
fn command(program: &Path) -> Command {
    let is_root =
        std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let mut command = if is_root { Command::new("setpriv") } else { Command::new(program) };
    if is_root {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    }
    // The server outlives the command that starts it, and would hold the test's own output open.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

impl Cluster {
    fn start() -> Self {
        let versions = std::fs::read_dir("/usr/lib/postgresql");
        let versions = versions.expect("PostgreSQL: scripts/install-deps --test installs it");
        let newest = versions.filter_map(|version| Some(version.ok()?.path().join("bin"))).max();
        let binaries = newest.expect("a version of PostgreSQL");
        let folder = tempfile::tempdir().expect("a folder");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(folder.path(), open).expect("ours");
        let cluster = Self { folder, binaries };
        let mut initdb = command(&cluster.binaries.join("initdb"));
        initdb.args(["--auth=trust", "--username=sigma", "--no-sync", "--pgdata"]).arg(cluster.pgdata());
        assert!(initdb.status().expect("run").success(), "initdb");
        cluster.control("start");
        cluster
    }

    fn pgdata(&self) -> PathBuf {
        self.folder.path().join("db")
    }

    fn control(&self, what: &str) {
        let mut control = command(&self.binaries.join("pg_ctl"));
        let socket = format!("-k {} -h ''", self.folder.path().display());
        control.args(["--wait", "--mode=immediate", "--options", &socket, "--pgdata"]).arg(self.pgdata());
        assert!(control.arg(what).status().expect("run").success(), "pg_ctl {what}");
    }

    fn store(&self) -> Store {
        let socket = self.folder.path().display().to_string().replace('/', "%2F");
        Store::url(&format!("postgres://sigma@localhost/postgres?host={socket}")).expect("a URL")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.control("stop");
    }
}

#[tokio::test]
async fn postgresql_keeps_the_same_and_one_origin_at_a_time_has_it() {
    let cluster = Cluster::start();
    let base_ms = now_ms() - 60_000;
    let kept = start_at(cluster.store());
    kept.broadcasts.send_replace(vec![Broadcast { start_ms: base_ms, end_ms: None }]);
    for sequence in 1..=3 {
        kept.stats.report(pop(), bytes(&report(sequence, base_ms))).await.expect("taken");
    }
    kept.stats.checkpoint().await.expect("written");
    kept.stats.report(pop(), bytes(&report(4, base_ms))).await.expect("taken");
    let expected = kept.summary(base_ms + 4000).await;
    assert_eq!((expected.totals.views, expected.totals.bytes), (7, 4000));
    assert!(matches!(cluster.store().prepare().await, Err(StoreError::Taken)));
    let sessions = kept.stats.sessions(&demo(), None, 100).await.expect("read");
    assert_eq!(sessions.len(), 7);
    kept.stop().await;
    // A report that went to the journal and no further.
    let store = cluster.store();
    let last = bytes(&report(5, base_ms));
    store.prepare().await.expect("free again");
    store
        .journal(&[Entry { id: 99, pop: &pop(), received_ms: now_ms(), report: &last, settled: None }])
        .await
        .expect("written");
    store.close().await;
    let again = start_at(cluster.store());
    let totals = again.summary(base_ms + 5000).await.totals;
    assert_eq!(
        (totals.views, totals.bytes, totals.watch_us),
        (7, 5000, expected.totals.watch_us + 7_000_000)
    );
    let from = base_ms / 1000;
    let series = again.stats.series(&demo(), &Scope::All, (Resolution::Second, from..from + 60)).await;
    assert_eq!(series.expect("read").values().map(|point| point.bytes).sum::<u64>(), 5000);
    again.stop().await;
    // What cannot be read is set aside.
    let store = cluster.store();
    for statement in [
        "UPDATE pieces SET value = 'garbage' WHERE kind = 'totals' AND part = 'all'",
        "UPDATE pieces SET value = '' WHERE kind = 'traffic'",
        "UPDATE sessions SET value = '' WHERE session LIKE '00%'",
    ] {
        store.execute(statement).await.expect("done");
    }
    store.close().await;
    let again = start_at(cluster.store());
    again.stats.report(pop(), bytes(&report(6, base_ms))).await.expect("taken");
    let (pieces, totals) = (
        again.stats.counters().set_aside.pieces.load(Ordering::Relaxed),
        again.summary(base_ms).await.totals,
    );
    assert!(pieces >= 3, "{pieces}");
    assert_eq!(totals.bytes, 1000, "they begin anew");
    again.stop().await;
}

#[tokio::test]
async fn postgresql_that_is_down_is_waited_for() {
    let cluster = Cluster::start();
    let base_ms = now_ms() - 60_000;
    let kept = start_at(cluster.store());
    kept.stats.report(pop(), bytes(&report(1, base_ms))).await.expect("taken");
    cluster.control("stop");
    let refused = kept.stats.report(pop(), bytes(&report(2, base_ms))).await;
    assert!(matches!(refused, Err(ReportError::Busy)), "{refused:?}");
    let mut available = kept.stats.available.clone();
    available.wait_for(|available| !available).await.expect("somebody is there");
    cluster.control("start");
    eventually_taken(&kept, &report(2, base_ms)).await;
    assert_eq!(kept.summary(base_ms).await.totals.bytes, 2000);
    assert!(kept.stats.is_available());
    kept.stop().await;
}
