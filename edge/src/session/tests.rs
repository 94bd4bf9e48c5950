use super::*;
use sigma_token::issuer::IssuerKey;
use sigma_token::jwk::JwkSet;
use sigma_token::policy::{ChannelPolicy, Document, SessionSecret};
use sigma_token::session::Unverified;

const NOW_MS: u64 = 1_790_000_000_000;
const NOW_S: u64 = NOW_MS / 1000;
const BINDING: Binding = Binding { v4_bits: 24, v6_bits: 56 };

fn issuer() -> IssuerKey {
    IssuerKey::from_seed(&[5; 32]).unwrap()
}

fn gate() -> Gate {
    let channels = [("demo", Playback::Public), ("paid", Playback::Token)];
    let document = Document {
        session_keys: vec![SessionSecret::new(1, &[1; 32], true)],
        jwks: JwkSet::of(&[issuer().jwk()]),
        channels: channels.map(|(name, playback)| (name.to_owned(), ChannelPolicy { playback })).into(),
        ..Document::default()
    };
    Gate { policy: Policy::new(&document).unwrap(), open: false }
}

fn minted(query: &str, now_ms: u64) -> Result<Minted, Refusal> {
    let resource = LiveResource::parse("/live/paid/index.m3u8").unwrap();
    let address = "203.0.113.9".parse().unwrap();
    let asked = Asked { resource: &resource, query: Some(query), address, now_ms };
    let how = Minting { binding: BINDING, audience: "sigma-live", id: SessionId([7; 16]) };
    mint(&gate(), &asked, &how)
}

fn token(change: impl FnOnce(&mut Claims)) -> String {
    let channels = serde_json::from_str(r#""paid""#).unwrap();
    let mut claims = Claims::new(channels, NOW_S + 60);
    change(&mut claims);
    format!("token={}", issuer().sign(&claims).unwrap())
}

fn checked(session: &Session, path: &str, address: &str, now_ms: u64) -> Result<(), Refusal> {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let resource = LiveResource::parse(path).unwrap();
    check(session, &gate(), &Asked { resource: &resource, query, address: address.parse().unwrap(), now_ms })
}

#[test]
fn sessions_are_stripped_from_live_paths_only() {
    for (path, expected) in [
        ("/s/abc/live/demo/index.m3u8", (Some("abc"), "/live/demo/index.m3u8")),
        ("/s//live/demo/index.m3u8", (Some(""), "/live/demo/index.m3u8")),
        ("/live/demo/index.m3u8", (None, "/live/demo/index.m3u8")),
        ("/s/abc/watch/demo", (None, "/s/abc/watch/demo")),
        ("/s/abc/s/abc/live/demo/index.m3u8", (None, "/s/abc/s/abc/live/demo/index.m3u8")),
        ("/s/abc", (None, "/s/abc")),
        ("/s/", (None, "/s/")),
    ] {
        assert_eq!(split(path), expected, "{path}");
    }
}

#[test]
fn what_is_minted_opens_what_the_token_said() {
    let minted = minted(&format!("x=1&{}&mode=low", token(|_| {})), NOW_MS).unwrap();
    assert_eq!(minted.location, format!("/s/{}/live/paid/index.m3u8?mode=low", minted.text));
    let unverified = Unverified::parse(&minted.text).unwrap();
    assert_eq!(gate().policy.verify(&unverified, &"paid".parse().unwrap()), Some(minted.session));
    let (end_ms, home) = ((NOW_S + 60) * 1000, "203.0.113.200");
    let (playlist, part) = ("/live/paid/v/media.m3u8", "/live/paid/v/7.1.m4s");
    for (path, address, now_ms, expected) in [
        (playlist, home, end_ms - 1, Ok(())),
        (playlist, home, end_ms, Err(Refusal::Expired)),
        ("/live/paid/index.m3u8", home, end_ms, Err(Refusal::Expired)),
        (part, home, end_ms + MEDIA_GRACE_MS - 1, Ok(())),
        (part, home, end_ms + MEDIA_GRACE_MS, Err(Refusal::Expired)),
        (part, "203.0.114.1", NOW_MS, Err(Refusal::Address)),
        (part, "2001:db8::1", NOW_MS, Ok(())),
        ("/live/nobody/v/7.1.m4s", home, NOW_MS, Err(Refusal::NoChannel)),
    ] {
        assert_eq!(checked(&minted.session, path, address, now_ms), expected, "{path} {address} {now_ms}");
    }
}

#[test]
fn modes_of_the_token_hold_for_every_playlist() {
    let low = token(|claims| claims.modes = Some(Modes::NONE.with(Mode::Low)));
    let session = minted(&low, NOW_MS).unwrap().session;
    assert_eq!(minted(&format!("mode=ultra&{low}"), NOW_MS), Err(Refusal::Mode));
    for (path, expected) in [
        ("/live/paid/v/low.m3u8", Ok(())),
        ("/live/paid/v/iframes-low.m3u8", Ok(())),
        ("/live/paid/v/media.m3u8", Err(Refusal::Mode)),
        ("/live/paid/v/iframes.m3u8", Err(Refusal::Mode)),
        ("/live/paid/index.m3u8?mode=low", Ok(())),
        ("/live/paid/index.m3u8?mode=ultra", Err(Refusal::Mode)),
        ("/live/paid/index.m3u8", Err(Refusal::Mode)),
        ("/live/paid/index.m3u8?mode=x", Err(Refusal::Query)),
        ("/live/paid/v/7.m4s", Ok(())),
    ] {
        assert_eq!(checked(&session, path, "203.0.113.9", NOW_MS), expected, "{path}");
    }
}

#[test]
fn of_two_tokens_none_is_taken() {
    let good = token(|_| {});
    for query in [
        format!("{good}&{good}"),
        format!("token=x&{good}"),
        format!("{good}&mode=low&token="),
        "token=&token=".to_owned(),
    ] {
        assert_eq!(minted(&query, NOW_MS), Err(Refusal::Tokens), "{query}");
    }
    assert_eq!(Refusal::Tokens.status(), 400);
    assert!(minted(&good, NOW_MS).is_ok());
    assert_eq!(minted("token=", NOW_MS), Err(Refusal::NoToken));
}

#[test]
fn what_the_leeway_let_in_lives_by_the_leeway() {
    let late = |by_s: u64| minted(&token(|claims| claims.exp = NOW_S - by_s), NOW_MS);
    assert_eq!(late(10).unwrap().session.expires_at_s, u32::try_from(NOW_S + 20).unwrap());
    assert_eq!(late(30), Err(Refusal::Token(jwt::Refused::Expired)));
}

#[test]
fn a_demanded_network_refuses_the_other_family() {
    let bound = token(|claims| claims.ip = Some("203.0.113.0/28".parse().unwrap()));
    let session = minted(&bound, NOW_MS).unwrap().session;
    for (address, expected) in [
        ("203.0.113.15", Ok(())),
        ("203.0.113.16", Err(Refusal::Address)),
        ("2001:db8::1", Err(Refusal::Address)),
    ] {
        assert_eq!(checked(&session, "/live/paid/v/7.m4s", address, NOW_MS), expected, "{address}");
    }
}

#[test]
fn a_public_session_opens_no_token_channel() {
    let resource = LiveResource::parse("/live/demo/index.m3u8").unwrap();
    let address = "203.0.113.9".parse().unwrap();
    let asked = Asked { resource: &resource, query: None, address, now_ms: NOW_MS };
    let how = Minting { binding: BINDING, audience: "", id: SessionId([7; 16]) };
    let session = mint(&gate(), &asked, &how).unwrap().session;
    assert_eq!(checked(&session, "/live/demo/v/7.m4s", "2001:db8::1", u64::MAX), Ok(()), "never over");
    assert_eq!(checked(&session, "/live/paid/v/7.m4s", "203.0.113.9", NOW_MS), Err(Refusal::NoToken));
}

#[test]
fn no_session_is_logged() {
    for (path, logged) in [
        ("/s/SESSION/live/demo/index.m3u8", "/live/demo/index.m3u8"),
        ("/live/s/index.m3u8", "/live/s/index.m3u8"),
        ("/watch/demo", "/watch/demo"),
        ("/s/SESSION/", "/s/"),
        ("/s/SESSION", "/s/"),
        ("/s/SESSION/watch/demo", "/s/"),
        ("/s/s/SESSION/live/demo/index.m3u8", "/s/"),
        ("//s/SESSION/live/demo/index.m3u8", "/s/"),
        ("/s//s/SESSION/live/demo/index.m3u8", "/s/"),
        ("/", "/"),
    ] {
        assert_eq!(loggable(path), logged, "{path}");
    }
}
