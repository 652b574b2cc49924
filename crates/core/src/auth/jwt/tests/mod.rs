//! Tokens that must be refused, each for its own reason, and those that must not.

mod accepted;
mod claims;
mod keys;
mod refused;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, Header, encode};
use secrecy::SecretString;
use serde_json::json;

use super::*;

const SECRET: &str = "a secret of more than thirty-two bytes";
const NOW: i64 = 1_790_000_000;
const PEMS: [(&str, &str); 5] = [
    ("rsa", include_str!("../../test_keys/rsa.pem")),
    ("rsa2", include_str!("../../test_keys/rsa2.pem")),
    ("p256", include_str!("../../test_keys/p256.pem")),
    ("p384", include_str!("../../test_keys/p384.pem")),
    ("ed", include_str!("../../test_keys/ed.pem")),
];

fn pem(name: &str) -> &'static [u8] {
    PEMS.iter().find(|(n, _)| *n == name).unwrap().1.as_bytes()
}

fn key(name: &str) -> EncodingKey {
    match name {
        "hs" => EncodingKey::from_secret(SECRET.as_bytes()),
        "rsa" | "rsa2" => EncodingKey::from_rsa_pem(pem(name)).unwrap(),
        "ed" => EncodingKey::from_ed_pem(pem(name)).unwrap(),
        _ => EncodingKey::from_ec_pem(pem(name)).unwrap(),
    }
}

fn claims() -> Value {
    json!({ "sub": "s", "tenant_id": "t", "exp": NOW + 60, "iat": NOW - 60 })
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "called with a fresh value each time"
)]
fn with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

fn token(algorithm: Algorithm, kid: Option<&str>, signer: &str, claims: &Value) -> String {
    let mut header = Header::new(algorithm);
    header.kid = kid.map(str::to_owned);
    encode(&header, claims, &key(signer)).unwrap()
}

/// A token with a header of the test's own, signed with the shared secret.
fn forged(header: &Value, claims: &Value, signature: impl Fn(&str) -> String) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = signature(&signed);
    format!("{signed}.{signature}")
}

fn hs256(secret: &[u8]) -> impl Fn(&str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    move |signed| URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()))
}

fn jwks() -> Value {
    use jsonwebtoken::jwk::Jwk;
    let jwk = |name: &str, algorithm| {
        let mut jwk =
            serde_json::to_value(Jwk::from_encoding_key(&key(name), algorithm).unwrap()).unwrap();
        jwk["kid"] = name.into();
        jwk["use"] = "sig".into();
        jwk.as_object_mut().unwrap().remove("alg");
        jwk
    };
    let mut enc = jwk("rsa2", Algorithm::RS256);
    enc["kid"] = "for-encryption".into();
    enc["use"] = "enc".into();
    let mut pinned = jwk("rsa", Algorithm::RS256);
    pinned["kid"] = "pinned".into();
    pinned["alg"] = "RS512".into();
    json!({ "keys": [
        jwk("rsa", Algorithm::RS256), jwk("p256", Algorithm::ES256), jwk("p384", Algorithm::ES384),
        jwk("ed", Algorithm::EdDSA), enc, pinned,
        { "kty": "oct", "kid": "shared", "k": URL_SAFE_NO_PAD.encode(SECRET) },
        { "kty": "unheard-of", "kid": "other" },
    ] })
}

struct Bed {
    verifier: Verifier,
    clock: Clock,
    _folder: tempfile::TempDir,
}

/// A verifier with the shared secret, the keys, or both, that wants issuer `i` and audience `a` where `is_strict`.
fn bed(has_secret: bool, has_keys: bool, is_strict: bool) -> Bed {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwks.json");
    std::fs::write(&file, jwks().to_string()).unwrap();
    let clock = Clock::manual(Timestamp::from_secs(NOW));
    let config = AuthConfig {
        jwt_secret: has_secret.then(|| SecretString::from(SECRET)),
        jwks_file: has_keys.then_some(file),
        issuer: is_strict.then(|| "i".to_owned()),
        audience: if is_strict {
            vec!["a".to_owned()]
        } else {
            Vec::new()
        },
        ..AuthConfig::default()
    };
    Bed {
        verifier: Verifier::new(config, clock.clone()).unwrap(),
        clock,
        _folder: folder,
    }
}

/// A verifier whose clock stands still at [`NOW`].
fn verifier(config: AuthConfig) -> Verifier {
    Verifier::new(config, Clock::manual(Timestamp::from_secs(NOW))).unwrap()
}
