use super::*;
use crate::claims::{Audience, Channels};
use crate::issuer::IssuerKey;
use crate::jwk::{Jwk, JwkSet, UnusableKey};
use crate::modes::Modes;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use proptest::prelude::*;
use serde_json::json;
use sigma_shared::mode::Mode;

const NOW_S: u64 = 1_790_000_000;
const SECRET: [u8; 32] = [9; 32];

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn issuer() -> IssuerKey {
    IssuerKey::from_seed(&[5; 32]).unwrap()
}

fn ec() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
}

fn ec_jwk(pair: &EcdsaKeyPair) -> Value {
    let point = pair.public_key().as_ref();
    json!({"kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256", "x": b64(&point[1..33]), "y": b64(&point[33..])})
}

fn keys_with(more: Vec<Value>) -> KeySet {
    let mut set = JwkSet::of(&[issuer().jwk()]);
    set.keys.push(json!({"kty": "oct", "kid": "hs", "alg": "HS256", "k": b64(SECRET)}));
    set.keys.extend(more);
    KeySet::new(&set).0
}

fn expected(channel: &ChannelId) -> Expected<'_> {
    Expected { channel, address: "203.0.113.9".parse().unwrap(), audience: "sigma-live", now_s: NOW_S }
}

fn opens(token: &str, keys: &KeySet) -> Result<Claims, Refused> {
    verify(token, keys, &expected(&"demo".parse().unwrap()))
}

fn hs256(header: &str, claims: &str, secret: &[u8]) -> String {
    let message = format!("{}.{}", b64(header), b64(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    format!("{message}.{}", b64(hmac::sign(&key, message.as_bytes())))
}

const HEADER: &str = r#"{"alg":"HS256","kid":"hs"}"#;

fn claiming(claims: &str) -> Result<Claims, Refused> {
    opens(&hs256(HEADER, claims, &SECRET), &keys_with(vec![]))
}

fn full() -> Claims {
    let channels = vec!["demo".parse().unwrap(), "other".parse().unwrap()];
    Claims {
        sub: Some("user-1".to_owned()),
        nbf: Some(NOW_S - 5),
        iat: Some(NOW_S - 5),
        ip: Some("203.0.113.0/24".parse().unwrap()),
        max_sessions: Some(2),
        modes: Some(Modes::NONE.with(Mode::Low)),
        aud: Some(Audience::Many(vec!["else".to_owned(), "sigma-live".to_owned()])),
        ..Claims::new(Channels::Named(channels), NOW_S + 60)
    }
}

#[test]
fn the_three_algorithms() {
    let pair = ec();
    let keys = keys_with(vec![ec_jwk(&pair)]);
    assert_eq!(opens(&issuer().sign(&full()).unwrap(), &keys), Ok(full()));
    let claims = serde_json::to_string(&full()).unwrap();
    assert_eq!(opens(&hs256(HEADER, &claims, &SECRET), &keys), Ok(full()));
    let message = format!("{}.{}", b64(r#"{"typ":"jwt","alg":"ES256","kid":"ec"}"#), b64(&claims));
    let signature = pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
    assert_eq!(opens(&format!("{message}.{}", b64(signature)), &keys), Ok(full()));
}

#[test]
fn headers_do_not_choose_how_they_are_verified() {
    let claims = format!(r#"{{"exp":{},"channel":"demo"}}"#, NOW_S + 60);
    let public = URL_SAFE_NO_PAD.decode(issuer().jwk().x.unwrap()).unwrap();
    let eddsa = issuer().kid().to_owned();
    let keys = keys_with(vec![ec_jwk(&ec())]);
    let header = |text: &str| text.replace("KID", &eddsa);
    for (text, refused) in [
        (r#"{"alg":"none","kid":"hs"}"#, Refused::Algorithm),
        (r#"{"alg":"None","kid":"hs"}"#, Refused::Algorithm),
        (r#"{"alg":"","kid":"hs"}"#, Refused::Algorithm),
        (r#"{"alg":null,"kid":"hs"}"#, Refused::Algorithm),
        (r#"{"kid":"hs"}"#, Refused::Algorithm),
        (r#"{"alg":"HS384","kid":"hs"}"#, Refused::Algorithm),
        (r#"{"alg":"RS256","kid":"hs"}"#, Refused::Algorithm),
        (r#"{"alg":"ES256","kid":"hs"}"#, Refused::Algorithm),
        (r#"{"alg":"EdDSA","kid":"hs"}"#, Refused::Algorithm),
        // A public key taken for a secret.
        (r#"{"alg":"HS256","kid":"KID"}"#, Refused::Algorithm),
        (r#"{"alg":"HS256","kid":"ec"}"#, Refused::Algorithm),
        (r#"{"alg":"EdDSA","kid":"KID"}"#, Refused::Signature),
        (r#"{"alg":"ES256","kid":"ec"}"#, Refused::Signature),
        (r#"{"alg":"HS256"}"#, Refused::UnknownKey),
        (r#"{"alg":"HS256","kid":7}"#, Refused::UnknownKey),
        (r#"{"alg":"HS256","kid":"../../dev/null"}"#, Refused::UnknownKey),
        (r#"{"alg":"HS256","kid":"hs","crit":[]}"#, Refused::Algorithm),
        (r#"{"alg":"HS256","kid":"hs","crit":["exp"]}"#, Refused::Algorithm),
        (r#"{"alg":"HS256","kid":"hs","b64":false}"#, Refused::Algorithm),
        (r#"{"alg":"HS256","kid":"hs","jku":"https://evil.example/jwks"}"#, Refused::Algorithm),
        (r#"{"alg":"HS256","kid":"hs","x5u":"https://evil.example/x"}"#, Refused::Algorithm),
        (r#"{"alg":"HS256","kid":"hs","x5c":[]}"#, Refused::Algorithm),
        (r#"{"alg":"HS256","kid":"hs","jwk":{"kty":"oct","k":"AA"}}"#, Refused::Algorithm),
        (r#"{"alg":"HS256","kid":"hs","zip":"DEF"}"#, Refused::Algorithm),
        (r#"{"alg":"HS256","kid":"hs","typ":"at+jwt"}"#, Refused::Algorithm),
        (r#"{"alg":"HS256","alg":"none","kid":"hs"}"#, Refused::Malformed),
        (r#"{"alg":"HS256","kid":"hs","kid":"ec"}"#, Refused::Malformed),
        (r#"["HS256"]"#, Refused::Malformed),
        ("", Refused::Malformed),
    ] {
        for secret in [&public[..], &SECRET] {
            let token = hs256(&header(text), &claims, secret);
            assert_eq!(opens(&token, &keys), Err(refused), "{text}");
        }
    }
    assert_eq!(opens(&hs256(HEADER, &claims, &public), &keys), Err(Refused::Signature));
    assert_eq!(opens(&hs256(HEADER, &claims, b""), &keys), Err(Refused::Signature));
    assert!(opens(&hs256(HEADER, &claims, &SECRET), &keys).is_ok());
}

#[test]
fn shapes() {
    let good = issuer().sign(&full()).unwrap();
    let keys = keys_with(vec![]);
    let parts: Vec<&str> = good.split('.').collect();
    let big = hs256(HEADER, &format!(r#"{{"exp":{NOW_S},"x":"{}"}}"#, "x".repeat(4096)), &SECRET);
    for token in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        "x".repeat(5000),
        big,
        format!("{}.{}", parts[0], parts[1]),
        format!("{good}.x"),
        format!(".{good}"),
        format!(" {good}"),
        format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
        format!("{}.{}=.{}", parts[0], parts[1], parts[2]),
        format!("{}..{}", parts[0], parts[2]),
    ] {
        assert!(opens(&token, &keys).is_err(), "{token}");
    }
    for signature in ["", "=", "AAAA", &format!("{}=", parts[2]), &format!("{}A", parts[2])] {
        let token = format!("{}.{}.{signature}", parts[0], parts[1]);
        assert_eq!(opens(&token, &keys), Err(Refused::Signature), "{signature}");
    }
    assert_eq!(opens(&good, &KeySet::default()), Err(Refused::UnknownKey));
}

#[test]
fn claims_that_are_not_met_or_not_understood() {
    let (exp, soon) = (NOW_S + 60, NOW_S + 31);
    for (claims, outcome) in [
        (format!(r#""exp":{exp},"channel":"demo""#), None),
        (format!(r#""exp":{exp}.75,"channel":["x","demo"],"custom":{{"a":1}}"#), None),
        (format!(r#""exp":{exp},"channel":"*""#), None),
        (format!(r#""exp":{},"channel":"demo""#, NOW_S - 29), None),
        (format!(r#""exp":{},"channel":"demo""#, NOW_S - 30), Some(Refused::Expired)),
        (r#""exp":0,"channel":"demo""#.to_owned(), Some(Refused::Expired)),
        (format!(r#""exp":{exp},"nbf":{},"channel":"demo""#, NOW_S + 30), None),
        (format!(r#""exp":{exp},"nbf":{soon},"channel":"demo""#), Some(Refused::NotYet)),
        (format!(r#""exp":{exp},"iat":{soon},"channel":"demo""#), Some(Refused::NotYet)),
        (format!(r#""exp":{exp},"channel":"demo2""#), Some(Refused::Channel)),
        (format!(r#""exp":{exp},"channel":["x"]"#), Some(Refused::Channel)),
        (format!(r#""exp":{exp},"channel":"demo","ip":"203.0.113.0/24""#), None),
        (format!(r#""exp":{exp},"channel":"demo","ip":"203.0.114.0/24""#), Some(Refused::Address)),
        (format!(r#""exp":{exp},"channel":"demo","ip":"2001:db8::/32""#), Some(Refused::Address)),
        (format!(r#""exp":{exp},"channel":"demo","aud":"sigma-live""#), None),
        (format!(r#""exp":{exp},"channel":"demo","aud":["a","b"]"#), Some(Refused::Audience)),
        (format!(r#""exp":{exp},"channel":"demo","max_sessions":1"#), Some(Refused::Claims)),
        (format!(r#""exp":{exp},"channel":"demo","sub":"u","max_sessions":1"#), None),
        (format!(r#""exp":{exp},"channel":"demo","sub":"u","max_sessions":0"#), Some(Refused::Claims)),
        (format!(r#""exp":{exp},"channel":"demo","sub":"u","max_sessions":-1"#), Some(Refused::Claims)),
        (r#""channel":"demo""#.to_owned(), Some(Refused::Claims)),
        (format!(r#""exp":{exp}"#), Some(Refused::Claims)),
        (r#""exp":"1790000060","channel":"demo""#.to_owned(), Some(Refused::Claims)),
        (r#""exp":-1,"channel":"demo""#.to_owned(), Some(Refused::Claims)),
        (r#""exp":1e300,"channel":"demo""#.to_owned(), Some(Refused::Claims)),
        (r#""exp":null,"channel":"demo""#.to_owned(), Some(Refused::Claims)),
        (format!(r#""exp":{exp},"channel":[]"#), Some(Refused::Claims)),
        (format!(r#""exp":{exp},"channel":"Demo""#), Some(Refused::Claims)),
        (format!(r#""exp":{exp},"channel":null"#), Some(Refused::Claims)),
        (format!(r#""exp":{exp},"channel":"demo","ip":"nowhere""#), Some(Refused::Claims)),
        (format!(r#""exp":{exp},"channel":"demo","ip":null"#), Some(Refused::Claims)),
        (format!(r#""exp":{exp},"channel":"demo","modes":[]"#), Some(Refused::Claims)),
        (format!(r#""exp":{exp},"channel":"demo","modes":["fast"]"#), Some(Refused::Claims)),
        (format!(r#""exp":{exp},"channel":"demo","modes":null"#), Some(Refused::Claims)),
        (format!(r#""exp":{exp},"channel":"demo","sub":"""#), Some(Refused::Claims)),
        (format!(r#""exp":{exp},"channel":"demo","nbf":"x""#), Some(Refused::Claims)),
        (format!(r#""exp":1,"channel":"demo","exp":{exp}"#), Some(Refused::Malformed)),
        (format!(r#""exp":{exp},"channel":"x","\u0063hannel":"demo""#), Some(Refused::Malformed)),
        (format!(r#""exp":{exp},"channel":"demo","x":{{"a":1,"a":2}}"#), Some(Refused::Malformed)),
    ] {
        assert_eq!(claiming(&format!("{{{claims}}}")).err(), outcome, "{claims}");
    }
    assert_eq!(claiming("[]").err(), Some(Refused::Claims));
    assert_eq!(claiming("").err(), Some(Refused::Malformed));
}

#[test]
fn keys_that_cannot_be_used_are_left_out() {
    let good = serde_json::to_value(issuer().jwk()).unwrap();
    let with = |changes: Value| {
        let mut key = good.clone();
        for (name, value) in changes.as_object().unwrap() {
            key[name] = value.clone();
        }
        key
    };
    for (key, reason) in [
        (json!("noise"), UnusableKey::NotAKey),
        (json!({"kty": "OKP"}), UnusableKey::NotAKey),
        (with(json!({"kid": ""})), UnusableKey::Kid),
        (with(json!({"alg": "ES256"})), UnusableKey::Algorithm),
        (with(json!({"alg": "none"})), UnusableKey::Algorithm),
        (with(json!({"crv": "Ed448"})), UnusableKey::Algorithm),
        (with(json!({"kty": "RSA"})), UnusableKey::Algorithm),
        (with(json!({"use": "enc"})), UnusableKey::Usage),
        (with(json!({"x": "AAAA"})), UnusableKey::Material),
        (with(json!({"x": null})), UnusableKey::Material),
        (json!({"kty": "oct", "kid": "s", "k": b64([1; 31])}), UnusableKey::Material),
        (good.clone(), UnusableKey::Duplicate),
    ] {
        let (keys, unusable) = KeySet::new(&JwkSet { keys: vec![good.clone(), key] });
        assert_eq!(unusable, [reason]);
        assert_eq!(keys.len(), usize::from(reason != UnusableKey::Duplicate));
    }
    let many = (0..70).map(|n| with(json!({"kid": n.to_string()}))).collect();
    assert_eq!(KeySet::new(&JwkSet { keys: many }).0.len(), crate::jwk::KEYS_MAX);
    let jwk: Jwk = serde_json::from_value(good).unwrap();
    assert_eq!(jwk, issuer().jwk());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_change_of_a_token_is_accepted(at in 0..300_usize, with in "[A-Za-z0-9_.=-]|\\PC", insert: bool) {
        let good = issuer().sign(&full()).unwrap();
        let at = at % good.len();
        let mut forged = good.clone();
        forged.replace_range(if insert { at..at } else { at..at + 1 }, &with);
        prop_assert!(forged == good || opens(&forged, &keys_with(vec![])).is_err(), "{}", forged);
    }

    #[test]
    fn noise_is_refused(token in "\\PC{0,200}|[A-Za-z0-9_-]{0,60}[.][A-Za-z0-9_-]{0,60}[.][A-Za-z0-9_-]{0,90}") {
        prop_assert!(opens(&token, &keys_with(vec![])).is_err());
    }
}
