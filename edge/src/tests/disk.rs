//! The disk cache end to end: what memory has no room for comes from disk, and viewers cannot tell.

use super::*;
use http::HeaderMap;
use sigma_http::drain::Drain;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Memory has room for two of them.
const SEGMENT: usize = 600_000;
const FIELDS: [(&str, &str); 6] = [
    ("cache-control", "max-age=12, immutable"),
    ("cdn-cache-control", "max-age=86400"),
    ("cmsd-static", "com.sigma-live-span=\"1000-5000\",d=4000,ot=v,sf=h,st=ll"),
    ("content-length", "600000"),
    ("content-type", "video/mp4"),
    ("etag", "\"seven\""),
];

fn segment(n: usize) -> String {
    format!("/live/demo/v720/{n}.m4s")
}

/// The bytes of a segment, each one's different.
fn content(n: usize) -> &'static str {
    let letter = |at: usize| char::from(b'a' + u8::try_from((at / 1000 + at + n) % 26).unwrap());
    (0..SEGMENT).map(letter).collect::<String>().leak()
}

impl Lab {
    fn with_disk() -> Self {
        Self::with(|config| {
            config.cache.bytes_max = 1_400_000;
            let dir = config.upstream.ca.as_ref().unwrap().with_file_name("disk");
            config.disk_cache.dir = Some(dir);
        })
    }

    async fn disk_ready(&self) {
        within(until(|| self.edge.metrics.disk.writable.get() == 1)).await;
    }

    /// A viewer gets a segment that has to come from the upstream.
    async fn fetch(&mut self, n: usize) {
        let viewer = self.begin(&segment(n)).await;
        self.ask().await.head(200, &FIELDS).send(content(n)).await;
        assert_eq!(body(within(viewer).await.unwrap()).await.unwrap(), content(n));
        self.until_no_fills().await;
    }

    /// Segment 1 is on disk and not in memory.
    async fn push_out(&mut self) {
        let written = self.edge.metrics.disk.writes.written.get();
        for n in [2, 3, 4] {
            self.fetch(n + usize::try_from(written).unwrap() * 10).await;
        }
        let writes = self.edge.metrics.disk.writes.clone();
        within(until(move || writes.written.get() == written + 3)).await;
    }

    fn files(&self) -> Vec<PathBuf> {
        let folders = fs::read_dir(self.dir.path().join("disk/pop-1/objects")).unwrap();
        let files = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
        files.map(|file| file.unwrap().path()).collect()
    }
}

/// What does not say how long it took.
fn lasting(response: &Response<Incoming>) -> HeaderMap {
    let mut headers = response.headers().clone();
    for name in ["server-timing", "cmsd-dynamic", "age"] {
        assert!(headers.remove(name).is_some(), "{name}");
    }
    headers
}

fn age(response: &Response<Incoming>) -> u64 {
    header(response, "age").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_memory_has_no_room_for_comes_from_disk_with_the_same_bytes_and_headers() {
    let mut lab = Lab::with_disk();
    lab.disk_ready().await;
    lab.fetch(1).await;
    let memory = lab.viewer().await.get(&segment(1)).await;
    assert_eq!(header(&memory, "server-timing"), "cache;desc=hit");
    let (expected, age_before) = (lasting(&memory), age(&memory));
    assert_eq!(body(memory).await.unwrap(), content(1));
    let writes = lab.edge.metrics.disk.writes.clone();
    within(until(move || writes.written.get() == 1)).await;
    lab.push_out().await;

    let asked = lab.fake.count();
    let disk = lab.viewer().await.get(&segment(1)).await;
    assert!(header(&disk, "server-timing").starts_with("cache;desc=disk;dur="));
    assert_eq!(lasting(&disk), expected);
    assert!((age_before..age_before + 20).contains(&age(&disk)));
    assert_eq!(header(&disk, "content-length"), SEGMENT.to_string());
    assert_eq!(body(disk).await.unwrap(), content(1));
    lab.until_no_fills().await;
    // Then it is in memory again.
    let again = lab.viewer().await.get(&segment(1)).await;
    assert_eq!(header(&again, "server-timing"), "cache;desc=hit");
    assert_eq!(lasting(&again), expected);
    assert_eq!(body(again).await.unwrap(), content(1));
    assert_eq!(lab.fake.count(), asked, "the upstream was not asked");
    let (requests, reads) = (&lab.edge.metrics.requests, &lab.edge.metrics.disk.reads);
    assert_eq!((requests.disk_hit.get(), reads.hit.get()), (1, 1));
    assert_eq!(lab.edge.metrics.disk.read_bytes.get(), SEGMENT as u64);
    assert_eq!(lab.edge.metrics.disk.writes.written.get(), 4, "what is there is not written again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_viewers_are_one_read_and_head_and_range_are_as_from_memory() {
    let mut lab = Lab::with_disk();
    lab.disk_ready().await;
    lab.fetch(1).await;
    let writes = lab.edge.metrics.disk.writes.clone();
    within(until(move || writes.written.get() == 1)).await;
    let mut of_memory = request(Method::GET, &segment(1));
    of_memory.headers_mut().insert("range", "bytes=0-9".parse().unwrap());
    let ranged = |of: &Request<Empty<Bytes>>| {
        let mut again = request(Method::GET, of.uri().path());
        *again.headers_mut() = of.headers().clone();
        again
    };
    let memory = lab.viewer().await.send(ranged(&of_memory)).await;
    lab.push_out().await;
    let asked = lab.fake.count();

    let disk = lab.viewer().await.send(ranged(&of_memory)).await;
    assert_eq!((disk.status(), lasting(&disk)), (memory.status(), lasting(&memory)));
    assert_eq!(body(disk).await.unwrap(), body(memory).await.unwrap());
    lab.push_out().await;
    let asked_again = lab.fake.count();
    assert_eq!(asked_again, asked + 3);

    let head = lab.viewer().await.send(request(Method::HEAD, &segment(1))).await;
    assert_eq!(header(&head, "content-length"), SEGMENT.to_string());
    assert_eq!(body(head).await.unwrap(), "");
    lab.until_no_fills().await;
    lab.push_out().await;
    let asked = lab.fake.count();
    let reads = lab.edge.metrics.disk.reads.hit.get();
    let mut viewers = Vec::new();
    for _ in 0..50 {
        viewers.push(lab.begin(&segment(1)).await);
    }
    for viewer in viewers {
        assert_eq!(body(within(viewer).await.unwrap()).await.unwrap(), content(1));
    }
    assert_eq!(lab.edge.metrics.disk.reads.hit.get(), reads + 1);
    assert_eq!(lab.fake.count(), asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spoilt_file_is_made_whole_by_the_upstream() {
    let mut lab = Lab::with_disk();
    lab.disk_ready().await;
    lab.fetch(1).await;
    let writes = lab.edge.metrics.disk.writes.clone();
    within(until(move || writes.written.get() == 1)).await;
    let [file] = <[PathBuf; 1]>::try_from(lab.files()).unwrap();
    lab.push_out().await;
    // In its last piece: viewers have the ones before when it is noticed.
    let open = fs::File::options().write(true).open(&file).unwrap();
    open.write_at(b"!", open.metadata().unwrap().len() - 1).unwrap();

    let viewer = lab.begin(&segment(1)).await;
    let ask = lab.ask().await;
    assert_eq!(ask.path, segment(1));
    let response = within(viewer).await.unwrap();
    assert!(header(&response, "server-timing").starts_with("cache;desc=disk"), "it began there");
    ask.head(200, &FIELDS).send(content(1)).await;
    assert_eq!(body(response).await.unwrap(), content(1), "every byte once");
    lab.until_no_fills().await;
    let disk = &lab.edge.metrics.disk;
    assert_eq!((disk.reads.corrupt.get(), disk.reads.hit.get()), (1, 0));
    within(until(|| disk.writes.written.get() == 5)).await;
    assert!(file.exists(), "and it is written again");

    // Spoilt where it starts, it is the upstream's alone.
    lab.push_out().await;
    let open = fs::File::options().write(true).open(&file).unwrap();
    open.set_len(100).unwrap();
    let viewer = lab.begin(&segment(1)).await;
    lab.ask().await.head(200, &FIELDS).send(content(1)).await;
    let response = within(viewer).await.unwrap();
    assert!(header(&response, "server-timing").starts_with("cache;desc=miss"));
    assert_eq!(body(response).await.unwrap(), content(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_with_other_bytes_mends_nothing() {
    let mut lab = Lab::with_disk();
    lab.disk_ready().await;
    lab.fetch(1).await;
    let writes = lab.edge.metrics.disk.writes.clone();
    within(until(move || writes.written.get() == 1)).await;
    let [file] = <[PathBuf; 1]>::try_from(lab.files()).unwrap();
    lab.push_out().await;
    let open = fs::File::options().write(true).open(&file).unwrap();
    open.write_at(b"!", open.metadata().unwrap().len() - 1).unwrap();
    let viewer = lab.begin(&segment(1)).await;
    lab.ask().await.refuse(404).await;
    assert!(body(within(viewer).await.unwrap()).await.is_err(), "cut, not ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_process_serves_what_this_one_kept_without_an_upstream() {
    let mut lab = Lab::with_disk();
    lab.disk_ready().await;
    lab.fetch(1).await;
    let writes = lab.edge.metrics.disk.writes.clone();
    within(until(move || writes.written.get() == 1)).await;
    let mut config = config(lab.dir.path(), lab.fake.addr);
    config.disk_cache.dir = Some(lab.dir.path().join("disk"));
    let Lab { edge, fake, dir: _dir } = lab;
    fake.kill();
    // As after SIGUSR2: for a moment there are two.
    let next = app::start(&config, &Sockets::none()).unwrap();
    within(until(|| next.metrics.disk.entries.get() == 1)).await;
    let mut viewer = Viewer::h2(next.http[0]).await;
    let response = viewer.get(&segment(1)).await;
    assert_eq!(response.status(), 200);
    assert_eq!(body(response).await.unwrap(), content(1));
    assert_eq!(next.metrics.disk.writable.get(), 0);
    let drain: &Drain = &edge.drain;
    drain.start();
    within(edge.until_drained()).await;
    within(until(|| next.metrics.disk.writable.get() == 1)).await;
}

#[test]
fn check_config_says_what_is_wrong_with_the_folder() {
    let dir = certificates();
    let mut config = config(dir.path(), "127.0.0.1:1".parse().unwrap());
    for (folder, usable) in [("there/or/not", true), ("cert.pem", false), ("cert.pem/below", false)] {
        config.disk_cache.dir = Some(dir.path().join(folder));
        let checked = app::check_files(&config).map_err(|error| error.to_string());
        assert_eq!(checked.is_ok(), usable, "{checked:?}");
        if let Err(said) = checked {
            assert!(said.starts_with("disk_cache.dir: ") && said.contains("is a file"), "{said}");
        }
    }
    assert!(!dir.path().join("there").exists(), "looked, not touched");
}
