//! The disk cache on real folders: what is written, what is read, and what is found after everything that goes wrong.

use super::files::taken;
use super::record::{PIECE, Record};
use super::*;
use http::{HeaderMap, Response};
use prometheus_client::registry::Registry;
use sigma_shared::resource::LiveResource;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

const MIB: usize = 1 << 20;

struct Lab {
    disk: Arc<Disk>,
    metrics: Arc<Metrics>,
}

impl std::ops::Deref for Lab {
    type Target = Disk;

    fn deref(&self) -> &Disk {
        &self.disk
    }
}

/// Starts a process' disk cache on a folder.
fn start(dir: &Path, bytes_max: usize) -> Lab {
    let metrics = Metrics::register(&mut Registry::default());
    let config = DiskCacheConfig {
        dir: Some(dir.to_owned()),
        bytes_max: bytes_max as u64,
        write_bytes_per_s_max: 1 << 34,
    };
    let disk = Disk::start(&config, "pop-1", &metrics).unwrap().unwrap();
    Lab { disk, metrics }
}

async fn until(condition: impl Fn() -> bool) {
    let forever = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), forever).await.expect("it never happened");
}

impl Lab {
    async fn ready(self) -> Self {
        until(|| self.metrics.disk.writable.get() == 1).await;
        self
    }

    async fn until_written(&self, n: u64) {
        until(|| self.metrics.disk.writes.written.get() == n).await;
    }

    async fn body(&self, key: &CacheKey) -> Option<(Head, Vec<u8>, bool)> {
        let (head, mut reading) = self.read(self.find(key)?).await?;
        let mut body = Vec::new();
        while let Some(piece) = reading.next().await {
            body.extend(piece);
        }
        Some((head, body, reading.is_whole()))
    }
}

fn key(path: &str) -> CacheKey {
    CacheKey::new(LiveResource::parse(path).unwrap(), None, false).unwrap()
}

fn segment(n: u64) -> CacheKey {
    key(&format!("/live/demo/v720/{n}.m4s"))
}

fn bytes(n: u64, length: usize) -> Bytes {
    (0..length as u64).map(|at| (at.wrapping_mul(n + 7) >> 3) as u8).collect::<Vec<_>>().into()
}

fn head(status: u16, cache_control: &str) -> Arc<Head> {
    let response = Response::builder()
        .status(status)
        .header("cache-control", "max-age=12, immutable")
        .header("cdn-cache-control", cache_control)
        .header("etag", "\"seven\"")
        .header("age", "7")
        .header("set-cookie", "who=1")
        .header("cmsd-static", "com.sigma-live-span=\"1-9\",ot=v");
    Arc::new(Head::new(&response.body(()).unwrap(), Instant::now()))
}

fn kept() -> Arc<Head> {
    head(200, "max-age=86400")
}

fn path(dir: &Path, key: &CacheKey) -> PathBuf {
    Files::new(dir.join("pop-1")).path(ObjectId::of(&key.to_string()))
}

/// All objects' files.
fn stored(dir: &Path) -> Vec<String> {
    let folders = fs::read_dir(dir.join("pop-1/objects")).unwrap().map(|folder| folder.unwrap().path());
    let files = folders.filter(|path| path.is_dir()).flat_map(|folder| fs::read_dir(folder).unwrap());
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_is_read_by_the_next_process_too() {
    let dir = tempfile::tempdir().unwrap();
    let first = start(dir.path(), 64 * MIB).ready().await;
    let objects = [(1, 0), (2, 1), (3, PIECE), (4, PIECE + 1), (5, 3 * MIB + 17)];
    for (n, length) in objects {
        first.offer(&segment(n), &kept(), &bytes(n, length));
    }
    first.until_written(5).await;
    first.offer(&segment(5), &kept(), &bytes(5, 9));
    let asked = first.metrics.disk.writes.written.get();
    drop(first);
    assert_eq!(asked, 5, "what is there is not written again");

    let second = start(dir.path(), 64 * MIB).ready().await;
    assert_eq!(second.metrics.disk.entries.get(), 5);
    for (n, length) in objects {
        let (head, body, whole) = second.body(&segment(n)).await.unwrap();
        assert!(whole && body == bytes(n, length), "{n}");
        let mut fields = HeaderMap::new();
        fields.extend(head.fields().map(|(name, value)| (name.clone(), value.clone())));
        let mut expected = HeaderMap::new();
        expected.extend(kept().fields().map(|(name, value)| (name.clone(), value.clone())));
        assert_eq!(fields, expected);
        assert_eq!((head.status, head.object), (StatusCode::OK, kept().object));
        assert!(head.from_disk && (7..30).contains(&head.age_s), "{}", head.age_s);
        assert_eq!(head.content_length, Some(length as u64));
    }
    assert!(second.find(&segment(6)).is_none());
    let reads = &second.metrics.disk.reads;
    assert_eq!((reads.hit.get(), reads.miss.get()), (5, 1));
}

#[test]
fn age_goes_on_as_it_would_have_in_memory() {
    let now = Instant::now();
    for (since_ms, expected_s, rest_ms) in [(0, 3, 0), (1_999, 4, 999), (86_400_000, 86_403, 0)] {
        let times = Times { arrived_ms: 1_000_000, age_s: 3, expires_ms: u64::MAX };
        let (arrived, age_s) = arrival(times, 1_000_000 + since_ms, now);
        assert_eq!((age_s, now - arrived), (expected_s, Duration::from_millis(rest_ms)), "{since_ms}");
    }
    // A clock that was set back makes nothing younger than it was.
    let times = Times { arrived_ms: 1_000_000, age_s: 3, expires_ms: u64::MAX };
    assert_eq!(arrival(times, 5, now), (now, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_has_its_bytes_for_hours_gets_in() {
    let dir = tempfile::tempdir().unwrap();
    let lab = start(dir.path(), 64 * MIB).ready().await;
    for (path, head) in [
        ("/live/demo/v720/media.m3u8", kept()),
        ("/live/demo/index.m3u8", kept()),
        ("/live/demo/v720/7.m4s", head(404, "max-age=86400")),
        ("/live/demo/v720/7.m4s", head(206, "max-age=86400")),
        ("/live/demo/v720/7.m4s", head(200, "private, max-age=86400")),
        ("/live/demo/v720/7.m4s", head(200, "no-store")),
        ("/live/demo/v720/7.1.m4s", head(200, "max-age=12")),
        // Of these, seven have passed.
        ("/live/demo/v720/7.m4s", head(200, "max-age=66")),
    ] {
        lab.offer(&key(path), &head, &bytes(1, 100));
    }
    for path in
        ["/live/demo/v720/7.m4s", "/live/demo/v720/init-00000000000000af.mp4", "/live/demo/v720/7.i.m4s"]
    {
        lab.offer(&key(path), &head(200, "max-age=67"), &bytes(2, 100));
    }
    lab.until_written(3).await;
    assert_eq!(stored(dir.path()).len(), 3);
    assert!(lab.find(&key("/live/demo/v720/media.m3u8")).is_none());
    assert_eq!(lab.body(&segment(7)).await.unwrap().1, bytes(2, 100));
    let writes = &lab.metrics.disk.writes;
    assert_eq!((writes.queue_full.get(), writes.unwritable.get(), writes.failed.get()), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_use_goes_when_there_is_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let lab = start(dir.path(), 10 * MIB).ready().await;
    for n in 0..4 {
        lab.offer(&segment(n), &kept(), &bytes(n, 2 * MIB));
    }
    lab.until_written(4).await;
    assert!(lab.find(&segment(0)).is_some(), "used");
    lab.offer(&segment(4), &kept(), &bytes(4, 5 * MIB));
    lab.until_written(5).await;
    let there: Vec<_> = (0..5).filter(|n| lab.find(&segment(*n)).is_some()).collect();
    assert_eq!(there, [0, 3, 4]);
    assert_eq!(lab.metrics.disk.evictions.room.get(), 2);
    assert_eq!(stored(dir.path()).len(), 3, "files too");
    // What would never fit throws nothing out.
    lab.offer(&segment(5), &kept(), &bytes(5, 11 * MIB));
    until(|| lab.metrics.disk.writes.too_large.get() == 1).await;
    assert_eq!(stored(dir.path()).len(), 3);
    // A smaller bound counts for the next process, which reads the folder twice: when it starts, and when it may write.
    let less = start(dir.path(), 6 * MIB);
    until(|| less.metrics.disk.entries.get() == 1).await;
    assert_eq!((less.metrics.disk.writable.get(), stored(dir.path()).len()), (0, 3));
    drop(lab);
    let less = less.ready().await;
    assert_eq!((less.metrics.disk.entries.get(), stored(dir.path()).len()), (1, 1));
    assert_eq!(less.body(&segment(4)).await.unwrap().1, bytes(4, 5 * MIB), "the newest");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_as_it_was_written_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let lab = start(dir.path(), 64 * MIB).ready().await;
    for n in 0..5 {
        lab.offer(&segment(n), &kept(), &bytes(n, 3 * PIECE));
    }
    lab.until_written(5).await;
    let open = |n| fs::File::options().write(true).open(path(dir.path(), &segment(n))).unwrap();
    open(0).set_len(2 * PIECE as u64).unwrap();
    open(1).write_at(b"x", 20).unwrap();
    let length = open(2).metadata().unwrap().len();
    open(2).write_at(b"xyz", length - 3).unwrap();
    fs::copy(path(dir.path(), &segment(4)), path(dir.path(), &segment(3))).unwrap();
    assert!(lab.body(&segment(0)).await.is_none(), "too short");
    assert!(lab.body(&segment(1)).await.is_none(), "its head");
    let (_, body, whole) = lab.body(&segment(2)).await.unwrap();
    assert!(!whole && body == bytes(2, 2 * PIECE), "what was before it is given out, and no more");
    assert!(lab.body(&segment(3)).await.is_none(), "another object's");
    until(|| lab.metrics.disk.reads.corrupt.get() == 4).await;
    until(|| lab.metrics.disk.entries.get() == 1).await;
    assert_eq!(stored(dir.path()).len(), 1);
    assert!((0..4).all(|n| lab.find(&segment(n)).is_none()));
    // Deleted behind our back.
    fs::remove_file(path(dir.path(), &segment(4))).unwrap();
    assert!(lab.body(&segment(4)).await.is_none());
    until(|| lab.metrics.disk.entries.get() == 0).await;
    assert_eq!((lab.metrics.disk.reads.gone.get(), lab.metrics.disk.reads.corrupt.get()), (1, 4));
    // They can be had again.
    lab.offer(&segment(2), &kept(), &bytes(2, 3 * PIECE));
    lab.until_written(6).await;
    assert!(lab.body(&segment(2)).await.unwrap().2);
}

/// A file as a killed process, a crashed machine or another version leaves it.
fn leave(dir: &Path, name: &str, content: &[u8]) -> PathBuf {
    let folder = dir.join("pop-1/objects/ab");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_process_leaves_is_cleared_away_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let killed = start(dir.path(), 64 * MIB).ready().await;
    killed.offer(&segment(1), &kept(), &bytes(1, 1000));
    killed.until_written(1).await;
    drop(killed);
    let id = |n: u64| ObjectId::of(&segment(n).to_string());
    let half = leave(dir.path(), "writing-abc", b"SIGDISK1");
    let empty = leave(dir.path(), &id(2).to_string(), b"");
    let older = leave(dir.path(), &id(3).to_string(), b"SIGDISK0 and something else");
    let foreign = leave(dir.path(), "README", b"not ours");
    let other = dir.path().join("pop-1/objects/a file");
    fs::write(&other, "not ours").unwrap();
    let times = Times { arrived_ms: 1_000, age_s: 0, expires_ms: 86_401_000 };
    let files = Files::new(dir.path().join("pop-1"));
    let old = Record::new(segment(4).to_string(), times, kept().fields(), b"long ago").written().unwrap();
    files.write(id(4), (&old, b"long ago"), |_| true).unwrap();

    let next = start(dir.path(), 64 * MIB).ready().await;
    for gone in [half, empty, older, files.path(id(4))] {
        assert!(!gone.exists(), "{}", gone.display());
    }
    assert!(foreign.exists() && other.exists());
    assert_eq!((next.metrics.disk.entries.get(), next.metrics.disk.reads.corrupt.get()), (1, 2));
    assert_eq!(next.metrics.disk.bytes.get(), 4096);
    assert!(next.body(&segment(1)).await.unwrap().2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_reads_at_once_and_writes_when_its_predecessor_has_left() {
    let dir = tempfile::tempdir().unwrap();
    let old = start(dir.path(), 64 * MIB).ready().await;
    old.offer(&segment(1), &kept(), &bytes(1, 1000));
    old.until_written(1).await;
    let new = start(dir.path(), 64 * MIB);
    until(|| new.metrics.disk.entries.get() == 1).await;
    assert!(new.body(&segment(1)).await.unwrap().2);
    assert_eq!(new.metrics.disk.writable.get(), 0);
    new.offer(&segment(2), &kept(), &bytes(2, 1000));
    assert_eq!(new.metrics.disk.writes.unwritable.get(), 1);
    // The old one goes on meanwhile, and deletes what the new one knows.
    old.offer(&segment(3), &kept(), &bytes(3, 1000));
    old.until_written(2).await;
    fs::remove_file(path(dir.path(), &segment(1))).unwrap();
    old.release();
    old.offer(&segment(4), &kept(), &bytes(4, 1000));
    assert_eq!(old.metrics.disk.writes.unwritable.get(), 1);
    let new = new.ready().await;
    assert_eq!(new.metrics.disk.entries.get(), 1, "what there is by then");
    assert!(new.body(&segment(3)).await.unwrap().2);
    assert!(old.body(&segment(3)).await.unwrap().2, "reading goes on");
    new.offer(&segment(2), &kept(), &bytes(2, 1000));
    new.until_written(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_cannot_be_used_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    // Not even the superuser makes a folder in a file.
    fs::write(dir.path().join("pop-1"), "in the way").unwrap();
    let lab = start(dir.path(), 64 * MIB);
    lab.offer(&segment(1), &kept(), &bytes(1, 1000));
    assert_eq!(lab.metrics.disk.writes.unwritable.get(), 1);
    assert!(lab.find(&segment(1)).is_none());
    fs::remove_file(dir.path().join("pop-1")).unwrap();
    let lab = lab.ready().await;
    lab.offer(&segment(1), &kept(), &bytes(1, 1000));
    lab.until_written(1).await;
    // It goes away under a running process.
    fs::remove_dir_all(dir.path().join("pop-1")).unwrap();
    fs::write(dir.path().join("pop-1"), "in the way").unwrap();
    lab.offer(&segment(2), &kept(), &bytes(2, 1000));
    until(|| lab.metrics.disk.writes.failed.get() == 1).await;
    until(|| lab.metrics.disk.writable.get() == 0).await;
    fs::remove_file(dir.path().join("pop-1")).unwrap();
    let lab = lab.ready().await;
    assert_eq!(lab.metrics.disk.entries.get(), 0);
    lab.offer(&segment(2), &kept(), &bytes(2, 1000));
    lab.until_written(2).await;
}

/// A file system of 2 MiB, where this process may make one.
struct Small(TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(dir.path());
        mount.output().is_ok_and(|output| output.status.success()).then_some(Self(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.0.path()).status().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_read_and_written_to_again_when_there_is_room() {
    // `a_disk_that_cannot_be_used_is_tried_again` sees the same states where nothing can be mounted.
    let Some(small) = Small::mount() else { return };
    let dir = small.0.path();
    let lab = start(dir, 64 * MIB).ready().await;
    let ballast = dir.join("ballast");
    fs::write(&ballast, vec![0; MIB]).unwrap();
    lab.offer(&segment(1), &kept(), &bytes(1, 100_000));
    lab.until_written(1).await;
    lab.offer(&segment(2), &kept(), &bytes(2, 3 * MIB / 2));
    until(|| lab.metrics.disk.writes.failed.get() == 1).await;
    assert_eq!(stored(dir).len(), 1, "nothing is left of what did not fit");
    assert!(lab.body(&segment(1)).await.unwrap().2, "for what cannot fit nothing is deleted");
    fs::remove_file(ballast).unwrap();
    let lab = lab.ready().await;
    lab.offer(&segment(2), &kept(), &bytes(2, 3 * MIB / 2));
    until(|| lab.find(&segment(2)).is_some()).await;
    assert!(lab.body(&segment(2)).await.unwrap().2);
    drop(lab);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_smaller_than_the_cache_keeps_what_was_asked_for_last() {
    let Some(small) = Small::mount() else { return };
    let dir = small.0.path();
    let first = start(dir, 64 * MIB).ready().await;
    for n in 1..=40 {
        first.offer(&segment(n), &kept(), &bytes(n, 100_000));
        first.until_written(n).await;
    }
    let disk = &first.metrics.disk;
    assert_eq!((disk.writes.failed.get(), disk.writable.get()), (0, 1));
    let kept_now = disk.entries.get();
    assert!(kept_now > 10 && disk.evictions.room.get() == 40 - kept_now as u64, "{kept_now} are left");
    assert!(first.find(&segment(1)).is_none() && first.body(&segment(40)).await.unwrap().2);
    drop(first);

    // Others take the last byte before it starts again.
    let _ = fs::write(dir.join("ballast"), vec![0; 2 * MIB]);
    assert!(fs::write(dir.join("more"), [0; 4096]).is_err());
    let config = DiskCacheConfig { dir: Some(dir.to_owned()), bytes_max: 64 << 20, write_bytes_per_s_max: 1 };
    assert!(shortage(&config, "pop-1").unwrap().contains("disk_cache.bytes_max is 67108864 bytes"));
    let small_enough = DiskCacheConfig { bytes_max: MIB as u64, ..config };
    assert_eq!(shortage(&small_enough, "pop-1"), None, "what it holds counts");
    let second = start(dir, 64 * MIB).ready().await;
    let entries = second.metrics.disk.entries.get();
    assert!(
        entries > kept_now / 2,
        "{entries} of {kept_now}: what is there is read before anything is written"
    );
    assert!(second.body(&segment(40)).await.unwrap().2);
    second.offer(&segment(41), &kept(), &bytes(41, 100_000));
    second.until_written(1).await;
    assert_eq!(second.metrics.disk.writes.failed.get(), 0);
    drop(second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_does_not_answer_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let lab = start(dir.path(), 64 * MIB).ready().await;
    for n in 1..=2 {
        lab.offer(&segment(n), &kept(), &bytes(n, 1000));
    }
    lab.until_written(2).await;
    // Opening it for reading takes until somebody writes to it.
    let pipe = path(dir.path(), &segment(1));
    fs::remove_file(&pipe).unwrap();
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let began = Instant::now();
    assert!(lab.body(&segment(1)).await.is_none());
    assert!((1..5).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert_eq!(lab.metrics.disk.reads.late.get(), 1);
    assert!(lab.find(&segment(2)).is_none(), "nor is anything else, for a while");
    assert_eq!(lab.metrics.disk.entries.get(), 2, "but it is not given up");
    fs::write(&pipe, "").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_writer_has_no_time_for_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Metrics::register(&mut Registry::default());
    let slow = DiskCacheConfig {
        dir: Some(dir.path().to_owned()),
        bytes_max: 1 << 30,
        write_bytes_per_s_max: 1 << 20,
    };
    let disk = Disk::start(&slow, "pop-1", &metrics).unwrap().unwrap();
    let lab = Lab { disk, metrics }.ready().await;
    let (began, body) = (Instant::now(), bytes(1, 2 * MIB));
    for n in 0..40 {
        lab.offer(&segment(n), &kept(), &body);
    }
    assert!(began.elapsed() < Duration::from_secs(1), "nobody waits");
    let dropped = lab.metrics.disk.writes.queue_full.get();
    assert!((7..=9).contains(&dropped), "all but 64 MiB and what is being written: {dropped}");
    assert!(lab.metrics.disk.queue_bytes.get() <= QUEUE_BYTES_MAX as i64);
    lab.until_written(2).await;
    // 4 MiB at 1 MiB/s; the first and the last piece need not wait.
    assert!(began.elapsed() > Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(taken(1), 4096);
    lab.release();
    until(|| lab.metrics.disk.queue_bytes.get() == 0).await;
}
