use super::*;
use crate::fake::{self, Fake, Fault};

async fn herd(fake: &Fake, requests: u32, protocol: Protocol) -> Result<HerdReport, HerdError> {
    let address = fake.address.join("v/media.m3u8").unwrap();
    let metrics = fake.address.join("/metrics").unwrap();
    let herd = Herd {
        address,
        requests,
        lead: Duration::from_millis(500),
        timeout: Duration::from_secs(10),
        metrics: Some((metrics, "up_total".parse().unwrap())),
    };
    run(Arc::new(fake::dialer(protocol)), &herd).await
}

#[tokio::test]
async fn all_are_held_and_released_together() {
    for protocol in [Protocol::H1, Protocol::H2] {
        // The part appears when the last of them waits.
        let fake = Fake::start(120, 1, |_, _| Fault::None).await;
        let report = herd(&fake, 120, protocol).await.unwrap();
        assert_eq!((report.answered, report.distinct_bodies, report.errors_total), (120, 1, 0));
        // From the tip at part 6 to the one 2 parts further on.
        assert_eq!(report.upstream_requests, Some(3.0));
        assert_eq!(fake.hits("/live/a/v/media.m3u8?_HLS_msn=102&_HLS_part=0"), 120);
        assert!(report.first_byte_after_release_ms.is_some());
        assert!(report.to_string().contains("upstream requests  3"));
    }
}

#[tokio::test]
async fn refusals_and_other_bytes_are_told() {
    let fake = Fake::start(1, 1, |path, hit| match hit {
        1 if path.contains("_HLS_msn") => Fault::Status(503),
        2 if path.contains("_HLS_msn") => Fault::OtherBytes,
        _ => Fault::None,
    })
    .await;
    let report = herd(&fake, 10, Protocol::H1).await.unwrap();
    assert_eq!((report.answered, report.distinct_bodies), (9, 2));
    assert_eq!(report.errors["http_503"], 1);
}

#[tokio::test]
async fn what_is_no_media_playlist_is_refused() {
    let fake = Fake::start(
        1,
        1,
        |path, _| {
            if path.ends_with("media.m3u8") { Fault::Status(404) } else { Fault::None }
        },
    )
    .await;
    let refused = herd(&fake, 1, Protocol::H1).await;
    assert!(matches!(refused, Err(HerdError::Status { status: 404, .. })));
}

#[test]
fn targets_stay_inside_the_limits() {
    use sigma_shared::reload::{Decision, Tip};
    for part_target_ms in [200u32, 334, 500, 1000] {
        for segment_parts in 1..=10u32 {
            for open_parts in 0..segment_parts {
                for lead_ms in [0, 300, 1000, 10_000] {
                    let view = MediaView {
                        can_block: true,
                        target_duration_us: 2_000_000,
                        part_target_us: Some(u64::from(part_target_ms) * 1000),
                        segment_parts,
                        next: (101, open_parts),
                        ..MediaView::default()
                    };
                    let want = target(&view, Duration::from_millis(lead_ms)).unwrap();
                    let tip =
                        Tip { complete_msn: 100, complete_parts: segment_parts, open_parts, ended: false };
                    assert_eq!(
                        tip.decide(&want, part_target_ms),
                        Decision::Wait,
                        "{want:?} {tip:?} {part_target_ms}"
                    );
                }
            }
        }
    }
    assert_eq!(target(&MediaView::default(), Duration::ZERO), None);
}
