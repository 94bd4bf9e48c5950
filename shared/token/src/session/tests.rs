use super::*;
use proptest::prelude::*;

fn channel(name: &str) -> ChannelId {
    name.parse().unwrap()
}

fn key() -> SessionKey {
    SessionKey::new(3, &[7; 32])
}

prop_compose! {
    fn sessions()(
        (id, subject, issued_at_s, expires_at_s) in any::<([u8; 16], [u8; 8], u32, u32)>(),
        modes in 0..8_u8,
        (by_token, sessions_max, demanded) in any::<(bool, u16, bool)>(),
        (is_bound, address, bits) in any::<(bool, IpAddr, u8)>(),
    ) -> Session {
        let most = if address.to_canonical().is_ipv4() { 32 } else { V6_BITS_MAX };
        let bound = Bound { prefix: IpPrefix::of(address, bits.clamp(1, most)), demanded };
        Session {
            id: SessionId(id),
            subject: SubjectHash(subject),
            issued_at_s,
            expires_at_s,
            modes: Modes::from_bits(modes).unwrap(),
            by_token,
            sessions_max: NonZeroU16::new(sessions_max),
            bound: is_bound.then_some(bound),
        }
    }
}

fn verified(text: &str, name: &str) -> Option<Session> {
    Unverified::parse(text)?.verify(&key(), &channel(name))
}

proptest! {
    #[test]
    fn what_is_minted_is_verified_on_its_channel_only(session in sessions()) {
        let text = key().mint(&session, &channel("demo"));
        prop_assert_eq!(text.len(), CHARS);
        prop_assert_eq!(verified(&text, "demo"), Some(session));
        for other in ["demo2", "dem", "x"] {
            prop_assert_eq!(verified(&text, other), None);
        }
        let parsed = Unverified::parse(&text).unwrap();
        for other in [SessionKey::new(3, &[8; 32]), SessionKey::new(4, &[7; 32])] {
            prop_assert_eq!(parsed.verify(&other, &channel("demo")), None);
        }
    }

    #[test]
    fn every_bit_and_every_character_counts(session in sessions(), bit in 0..BYTES * 8, with in "[\\PC]") {
        let text = key().mint(&session, &channel("demo"));
        let mut bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(verified(&URL_SAFE_NO_PAD.encode(&bytes), "demo"), None);
        for at in 0..CHARS {
            let mut changed = text.clone();
            changed.replace_range(at..=at, &with);
            prop_assert!(changed == text || verified(&changed, "demo").is_none(), "{}", changed);
        }
    }

    #[test]
    fn noise_is_no_session(text in "[A-Za-z0-9_-]{0,90}|\\PC{0,100}") {
        prop_assert_eq!(verified(&text, "demo"), None);
    }
}

#[test]
fn lengths_and_other_spellings() {
    let session = Session {
        id: SessionId([1; 16]),
        subject: SubjectHash::NONE,
        issued_at_s: 1,
        expires_at_s: 2,
        modes: Modes::ALL,
        by_token: true,
        sessions_max: None,
        bound: None,
    };
    let text = key().mint(&session, &channel("demo"));
    for other in [&text[..79], &format!("{text}A"), &format!("{text}="), &format!("{}=", &text[..79]), ""] {
        assert_eq!(verified(other, "demo"), None, "{other}");
    }
    assert!(!session.is_over(1_999, 0) && session.is_over(2_000, 0));
    assert!(!session.is_over(5_999, 4_000) && session.is_over(6_000, 4_000));
    assert!(!Session { expires_at_s: NEVER_S, ..session }.is_over(u64::MAX, 0));
    assert_eq!("01".repeat(16).parse(), Ok(session.id));
    for bad in ["", "01", &"0G".repeat(16), &"+1".repeat(16), &"01".repeat(17)] {
        assert!(bad.parse::<SessionId>().is_err(), "{bad}");
    }
}

#[test]
fn addresses() {
    let bound = |prefix: &str, demanded| Some(Bound { prefix: prefix.parse().unwrap(), demanded });
    for (bound, address, expected) in [
        (None, "9.9.9.9", true),
        (bound("10.0.0.0/24", false), "10.0.0.200", true),
        (bound("10.0.0.0/24", false), "::ffff:10.0.0.200", true),
        (bound("10.0.0.0/24", false), "10.0.1.1", false),
        (bound("10.0.0.0/24", false), "2001:db8::1", true),
        (bound("10.0.0.0/24", true), "2001:db8::1", false),
        (bound("2001:db8::/56", true), "2001:db8:0:80::1", true),
        (bound("2001:db8::/56", false), "2001:db8:0:100::1", false),
    ] {
        let session = Session {
            id: SessionId([1; 16]),
            subject: SubjectHash::NONE,
            issued_at_s: 0,
            expires_at_s: NEVER_S,
            modes: Modes::ALL,
            by_token: true,
            sessions_max: None,
            bound,
        };
        let read = verified(&key().mint(&session, &channel("demo")), "demo").unwrap();
        assert_eq!(read.admits(address.parse().unwrap()), expected, "{bound:?} {address}");
    }
}

#[test]
fn viewers_are_told_apart_by_network_and_player() {
    let key = ViewerKey::new(&[7; 32]);
    let viewer = |address: &str, agent: &[u8]| key.viewer(address.parse().unwrap(), agent);
    let one = viewer("203.0.113.7", b"player");
    assert_eq!(one, viewer("203.0.113.99", b"player"));
    assert_eq!(one, viewer("::ffff:203.0.113.99", b"player"));
    assert_ne!(one, viewer("203.0.114.7", b"player"));
    assert_ne!(one, viewer("203.0.113.7", b"another"));
    let signing = SessionKey::new(1, &[7; 32]).viewer_key();
    assert_eq!(one, signing.viewer("203.0.113.7".parse().unwrap(), b"player"), "as without a salt");
    assert_ne!(one, ViewerKey::new(&[8; 32]).viewer("203.0.113.7".parse().unwrap(), b"player"));
    assert_eq!(viewer("2001:db8:0:1::1", b""), viewer("2001:db8:0:ff::1", b""));
    assert_ne!(viewer("2001:db8:0:1::1", b""), viewer("2001:db8:0:100::1", b""));
}
