//! What letting a viewer in costs: nanoseconds per check, on this machine, one core, optimised.
//!
//! `cargo run --release -p sigma-token --example token_cost`. Pure part only: an edge adds a look-up in memory.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot begin has failed")]

use sigma_shared::id::ChannelId;
use sigma_token::claims::{Channels, Claims};
use sigma_token::issuer::IssuerKey;
use sigma_token::jwk::JwkSet;
use sigma_token::jwt::{Expected, verify};
use sigma_token::modes::Modes;
use sigma_token::policy::{Document, Policy, Revocation, SessionSecret};
use sigma_token::session::{Bound, Session, SessionId, SubjectHash, Unverified};
use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

const NOW_MS: u64 = 1_790_000_000_000;

fn measure(name: &str, rounds: u32, mut work: impl FnMut() -> bool) {
    for _ in 0..rounds / 10 {
        assert!(black_box(work()));
    }
    let began = Instant::now();
    for _ in 0..rounds {
        assert!(black_box(work()));
    }
    let ns = began.elapsed().as_nanos() / u128::from(rounds);
    let mut out = std::io::stdout();
    writeln!(out, "{name:<56} {ns:>8} ns").unwrap();
}

fn main() {
    let channel: ChannelId = "demo".parse().unwrap();
    let address = "203.0.113.9".parse().unwrap();
    let issuer = IssuerKey::from_seed(&[5; 32]).unwrap();
    let revocations = (0..1000).map(|n| Revocation::of_subject(&format!("user-{n}"), NOW_MS, NOW_MS * 2));
    let document = Document {
        session_keys: vec![SessionSecret::new(1, &[1; 32], true)],
        jwks: JwkSet::of(&[issuer.jwk()]),
        revocations: revocations.collect(),
        ..Document::default()
    };
    let policy = Policy::new(&document).unwrap();
    let session = Session {
        id: SessionId([7; 16]),
        subject: SubjectHash::of("viewer"),
        issued_at_s: 1_790_000_000,
        expires_at_s: 1_790_000_600,
        modes: Modes::ALL,
        by_token: true,
        sessions_max: None,
        bound: Some(Bound { prefix: "203.0.113.0/24".parse().unwrap(), demanded: false }),
    };
    let text = policy.signing_key().mint(&session, &channel);
    let allowed = |s: &Session| !s.is_over(NOW_MS, 0) && !policy.is_revoked(s, NOW_MS) && s.admits(address);
    measure("warm: parse, expiry, 1000 revocations, address", 2_000_000, || {
        Unverified::parse(black_box(&text)).is_some() && allowed(black_box(&session))
    });
    measure("cold: the same with the signature", 500_000, || {
        let verified = Unverified::parse(black_box(&text)).and_then(|s| policy.verify(&s, &channel));
        verified.is_some_and(|session| allowed(&session))
    });
    let mut claims = Claims::new(Channels::All, NOW_MS / 1000 + 60);
    claims.sub = Some("viewer".to_owned());
    let token = issuer.sign(&claims).unwrap();
    let expected = Expected { channel: &channel, address, audience: "", now_s: NOW_MS / 1000 };
    measure("once per session: a token (EdDSA)", 10_000, || {
        verify(black_box(&token), policy.token_keys(), &expected).is_ok()
    });
}
