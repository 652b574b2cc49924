//! Tokens that must be refused, each for its own reason, and those that must not.

use aws_lc_rs::hmac;
use jsonwebtoken::{EncodingKey, Header, encode};
use proptest::prelude::*;
use secrecy::SecretString;
use serde_json::json;

use super::*;
use crate::auth::Claims;

const SECRET: &str = "a secret of more than thirty-two bytes";
const NOW: i64 = 1_790_000_000;
const PEMS: [(&str, &str); 5] = [
    ("rsa", include_str!("../test_keys/rsa.pem")),
    ("rsa2", include_str!("../test_keys/rsa2.pem")),
    ("p256", include_str!("../test_keys/p256.pem")),
    ("p384", include_str!("../test_keys/p384.pem")),
    ("ed", include_str!("../test_keys/ed.pem")),
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

#[tokio::test]
async fn every_algorithm_that_is_promised() {
    let bed = bed(true, true, false);
    for (algorithm, kid) in [
        (Algorithm::HS256, "hs"),
        (Algorithm::HS384, "hs"),
        (Algorithm::HS512, "hs"),
        (Algorithm::RS256, "rsa"),
        (Algorithm::RS384, "rsa"),
        (Algorithm::RS512, "rsa"),
        (Algorithm::PS256, "rsa"),
        (Algorithm::ES256, "p256"),
        (Algorithm::ES384, "p384"),
        (Algorithm::EdDSA, "ed"),
    ] {
        let principal = bed
            .verifier
            .verify(&token(algorithm, Some(kid), kid, &claims()))
            .await;
        assert_eq!(
            principal.as_ref().map(|p| p.tenant.to_string()),
            Ok("t".to_owned()),
            "{algorithm:?}"
        );
    }
    // One key of a kind needs no name.
    assert!(
        bed.verifier
            .verify(&token(Algorithm::ES256, None, "p256", &claims()))
            .await
            .is_ok()
    );
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn forged_and_misused_tokens() {
    use Refusal::{
        Algorithm as WrongAlgorithm, Audience, Expired, Expiry, Header as WrongHeader, Issuer,
        Malformed, NoTenant, NotYet, Signature, Subject, TokenType, UnknownKey,
    };
    let (both, secret_only, keys_only, strict) = (
        bed(true, true, false),
        bed(true, false, false),
        bed(false, true, false),
        bed(true, false, true),
    );
    let hs = |claims: &Value| token(Algorithm::HS256, None, "hs", claims);
    let head = |extra: Value| {
        let mut header = json!({ "alg": "HS256", "typ": "JWT" });
        header
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        forged(&header, &claims(), hs256(SECRET.as_bytes()))
    };
    let none = |alg: &str| forged(&json!({ "alg": alg }), &claims(), |_| String::new());
    let good = hs(&claims());
    let mut parts: Vec<&str> = good.split('.').collect();
    let other_claims = URL_SAFE_NO_PAD.encode(with(json!({ "sub": "root" })).to_string());
    let swapped = [parts[0], &other_claims, parts[2]].join(".");
    let cut = good[..good.len() - 4].to_owned();
    parts.push("x");
    let four = parts.join(".");
    let rsa_public = json!(jwks()["keys"][0]["n"]).as_str().unwrap().to_owned();
    let strict_claims = |changes: Value| {
        let mut all = json!({ "iss": "i", "aud": "a" });
        all.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        hs(&with(all))
    };
    let table: Vec<(&str, &Bed, String, Refusal)> = vec![
        ("nothing", &both, String::new(), Malformed),
        ("no token at all", &both, "Bearer".into(), Malformed),
        ("two parts", &both, "a.b".into(), Malformed),
        ("four parts", &both, four, Malformed),
        (
            "a header that is no base64",
            &both,
            format!("!.{other_claims}.x"),
            Malformed,
        ),
        (
            "a header that is no JSON",
            &both,
            format!("{}.{other_claims}.x", URL_SAFE_NO_PAD.encode("{")),
            Malformed,
        ),
        (
            "claims that are no object",
            &both,
            forged(
                &json!({ "alg": "HS256" }),
                &json!([1]),
                hs256(SECRET.as_bytes()),
            ),
            Malformed,
        ),
        ("17 KiB", &both, "x".repeat(17 * 1024), Malformed),
        ("alg none", &both, none("none"), WrongAlgorithm),
        ("alg None", &both, none("None"), WrongAlgorithm),
        ("alg NONE", &both, none("NONE"), WrongAlgorithm),
        (
            "alg missing",
            &both,
            forged(&json!({}), &claims(), |_| String::new()),
            Malformed,
        ),
        ("alg HS1", &both, none("HS1"), WrongAlgorithm),
        (
            "alg in other letters",
            &both,
            forged(
                &json!({ "alg": "hs256" }),
                &claims(),
                hs256(SECRET.as_bytes()),
            ),
            WrongAlgorithm,
        ),
        (
            "alg PS384, not promised",
            &both,
            token(Algorithm::PS384, Some("rsa"), "rsa", &claims()),
            WrongAlgorithm,
        ),
        (
            "alg PS512, not promised",
            &both,
            token(Algorithm::PS512, Some("rsa"), "rsa", &claims()),
            WrongAlgorithm,
        ),
        (
            "HS256 with the RSA public key as secret",
            &keys_only,
            forged(
                &json!({ "alg": "HS256", "kid": "rsa" }),
                &claims(),
                hs256(rsa_public.as_bytes()),
            ),
            WrongAlgorithm,
        ),
        (
            "HS256 with the RSA PEM as secret",
            &both,
            forged(
                &json!({ "alg": "HS256", "kid": "rsa" }),
                &claims(),
                hs256(pem("rsa")),
            ),
            Signature,
        ),
        (
            "HS256 by a key of the JWKS",
            &keys_only,
            forged(
                &json!({ "alg": "HS256", "kid": "shared" }),
                &claims(),
                hs256(SECRET.as_bytes()),
            ),
            WrongAlgorithm,
        ),
        (
            "RS256 where only a secret is set",
            &secret_only,
            token(Algorithm::RS256, Some("rsa"), "rsa", &claims()),
            WrongAlgorithm,
        ),
        (
            "HS256 where only keys are set",
            &keys_only,
            good.clone(),
            WrongAlgorithm,
        ),
        (
            "another secret",
            &both,
            forged(
                &json!({ "alg": "HS256" }),
                &claims(),
                hs256(b"another secret of thirty-two bytes"),
            ),
            Signature,
        ),
        (
            "an empty secret",
            &both,
            forged(&json!({ "alg": "HS256" }), &claims(), hs256(b"")),
            Signature,
        ),
        (
            "no signature",
            &both,
            forged(&json!({ "alg": "HS256" }), &claims(), |_| String::new()),
            Signature,
        ),
        ("a cut signature", &both, cut, Malformed),
        (
            "other claims under the signature",
            &both,
            swapped,
            Signature,
        ),
        (
            "another RSA key under the name",
            &both,
            token(Algorithm::RS256, Some("rsa"), "rsa2", &claims()),
            Signature,
        ),
        (
            "a key named for another family",
            &both,
            token(Algorithm::RS256, Some("p256"), "rsa", &claims()),
            WrongAlgorithm,
        ),
        (
            "ES256 by the P-384 key's name",
            &both,
            token(Algorithm::ES256, Some("p384"), "p256", &claims()),
            WrongAlgorithm,
        ),
        (
            "EdDSA by the RSA key's name",
            &both,
            token(Algorithm::EdDSA, Some("rsa"), "ed", &claims()),
            WrongAlgorithm,
        ),
        (
            "a key for encryption",
            &both,
            token(Algorithm::RS256, Some("for-encryption"), "rsa2", &claims()),
            WrongAlgorithm,
        ),
        (
            "a key pinned to RS512",
            &both,
            token(Algorithm::RS256, Some("pinned"), "rsa", &claims()),
            WrongAlgorithm,
        ),
        (
            "an unknown kid",
            &both,
            token(Algorithm::RS256, Some("nobody"), "rsa", &claims()),
            UnknownKey,
        ),
        (
            "a kid that is a path",
            &both,
            token(Algorithm::RS256, Some("../../dev/null"), "rsa", &claims()),
            UnknownKey,
        ),
        (
            "no kid where two keys fit",
            &both,
            token(Algorithm::RS512, None, "rsa", &claims()),
            UnknownKey,
        ),
        (
            "a kid that is no text",
            &both,
            head(json!({ "kid": 1 })),
            Malformed,
        ),
        (
            "an embedded key",
            &both,
            head(json!({ "jwk": { "kty": "oct", "k": "AAAA" } })),
            WrongHeader,
        ),
        (
            "a key's address",
            &both,
            head(json!({ "jku": "http://127.0.0.1:1/keys" })),
            WrongHeader,
        ),
        (
            "a certificate's address",
            &both,
            head(json!({ "x5u": "http://127.0.0.1:1/cert" })),
            WrongHeader,
        ),
        (
            "a certificate",
            &both,
            head(json!({ "x5c": ["AAAA"] })),
            WrongHeader,
        ),
        (
            "a critical extension",
            &both,
            head(json!({ "crit": ["b64"], "b64": false })),
            WrongHeader,
        ),
        (
            "expired",
            &both,
            hs(&with(json!({ "exp": NOW - 31 }))),
            Expired,
        ),
        (
            "expired to the second",
            &both,
            hs(&with(json!({ "exp": NOW - 30 }))),
            Expired,
        ),
        (
            "expired long before the epoch",
            &both,
            hs(&with(json!({ "exp": -1 }))),
            Expired,
        ),
        ("no exp", &both, hs(&with(json!({ "exp": null }))), Expiry),
        (
            "exp as text",
            &both,
            hs(&with(json!({ "exp": (NOW + 60).to_string() }))),
            Expiry,
        ),
        (
            "exp far too large",
            &both,
            hs(&with(json!({ "exp": 1e300 }))),
            Expiry,
        ),
        (
            "not yet",
            &both,
            hs(&with(json!({ "nbf": NOW + 31 }))),
            NotYet,
        ),
        (
            "nbf as text",
            &both,
            hs(&with(json!({ "nbf": "soon" }))),
            Malformed,
        ),
        (
            "no subject",
            &both,
            hs(&with(json!({ "sub": null }))),
            Subject,
        ),
        (
            "an empty subject",
            &both,
            hs(&with(json!({ "sub": "" }))),
            Subject,
        ),
        (
            "a subject that is a list",
            &both,
            hs(&with(json!({ "sub": ["s"] }))),
            Subject,
        ),
        (
            "no tenant",
            &both,
            hs(&with(json!({ "tenant_id": null }))),
            NoTenant,
        ),
        (
            "an empty tenant",
            &both,
            hs(&with(json!({ "tenant_id": "" }))),
            NoTenant,
        ),
        (
            "a tenant that is no whole number",
            &both,
            hs(&with(json!({ "tenant_id": 1.5 }))),
            NoTenant,
        ),
        (
            "a tenant too large to be read exactly",
            &both,
            forged(
                &json!({ "alg": "HS256" }),
                &serde_json::from_str(&format!(
                    r#"{{"sub":"s","exp":{},"tenant_id":36893488147419103233}}"#,
                    NOW + 60
                ))
                .unwrap(),
                hs256(SECRET.as_bytes()),
            ),
            NoTenant,
        ),
        (
            "a tenant with a line break",
            &both,
            hs(&with(json!({ "tenant_id": "a\nb" }))),
            NoTenant,
        ),
        (
            "a refresh token",
            &both,
            hs(&with(json!({ "type": "refresh" }))),
            TokenType,
        ),
        (
            "a type that is no text",
            &both,
            hs(&with(json!({ "type": 1 }))),
            TokenType,
        ),
        (
            "no issuer",
            &strict,
            strict_claims(json!({ "iss": null })),
            Issuer,
        ),
        (
            "another issuer",
            &strict,
            strict_claims(json!({ "iss": "i/" })),
            Issuer,
        ),
        (
            "no audience",
            &strict,
            strict_claims(json!({ "aud": null })),
            Audience,
        ),
        (
            "another audience",
            &strict,
            strict_claims(json!({ "aud": ["b", "c"] })),
            Audience,
        ),
    ];
    assert!(table.len() >= 40);
    for (what, bed, token, refusal) in &table {
        let result = bed.verifier.verify(token).await;
        assert_eq!(result.unwrap_err(), *refusal, "{what}");
        // Also the second time, when something might have been remembered.
        assert!(bed.verifier.verify(token).await.is_err(), "{what}");
        assert!(token.len() < 8 || !refusal.to_string().contains(token.as_str()));
    }
    assert!(
        strict
            .verifier
            .verify(&strict_claims(json!({ "aud": ["b", "a"] })))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn claims_are_read_from_where_issuers_put_them() {
    let config = AuthConfig {
        jwt_secret: Some(SecretString::from(SECRET)),
        audience: vec!["app.example".into()],
        default_tenant: Tenant::new("default").ok(),
        issuer_tenants: [("https://i".to_owned(), "of-issuer".to_owned())].into(),
        directory: [("42".to_owned(), vec!["nurse".to_owned()])].into(),
        ..AuthConfig::default()
    };
    let verifier = Verifier::new(config, Clock::manual(Timestamp::from_secs(NOW))).unwrap();
    let read = async |claims: Value| {
        let mut all = json!({ "aud": "app.example", "exp": NOW + 60 });
        all.as_object_mut()
            .unwrap()
            .extend(claims.as_object().unwrap().clone());
        let p = verifier
            .verify(&token(Algorithm::HS256, None, "hs", &all))
            .await
            .unwrap();
        (
            p.tenant.to_string(),
            p.subject.to_string(),
            p.roles.iter().cloned().collect::<Vec<_>>().join(" "),
            p.scopes.len(),
        )
    };
    let expected = |tenant: &str, subject: &str, roles: &str, scopes| {
        (
            tenant.to_owned(),
            subject.to_owned(),
            roles.to_owned(),
            scopes,
        )
    };
    assert_eq!(
        read(json!({ "sub": 7, "company_id": 3, "roles": ["a", "b"] })).await,
        expected("3", "7", "a b", 0)
    );
    assert_eq!(
        read(json!({ "sub": "x", "tenant_id": "t", "company_id": 3, "role": "viewer" })).await,
        expected("t", "x", "viewer", 8)
    );
    assert_eq!(
        read(json!({ "sub": "x", "iss": "https://i", "scope": "a b" })).await,
        expected("of-issuer", "x", "", 2)
    );
    let nested = json!({ "sub": "x", "realm_access": { "roles": ["r"] }, "resource_access": { "app.example": { "roles": ["q"] } }, "scopes": ["s"] });
    assert_eq!(read(nested).await, expected("default", "x", "q r", 1));
    assert_eq!(
        read(json!({ "sub": "42" })).await,
        expected("default", "42", "nurse", 0)
    );
}

/// A default, another claim, or a table is for what a token does not say, never for what it says wrongly.
#[tokio::test]
async fn what_a_token_says_wrongly_has_no_stand_in() {
    let config = AuthConfig {
        jwt_secret: Some(SecretString::from(SECRET)),
        default_tenant: Tenant::new("default").ok(),
        ..AuthConfig::default()
    };
    let verifier = Verifier::new(config, Clock::manual(Timestamp::from_secs(NOW))).unwrap();
    let read = async |changes: Value| {
        verifier
            .verify(&token(Algorithm::HS256, None, "hs", &with(changes)))
            .await
    };
    for wrong in [json!(""), json!(["t"]), json!({ "id": "t" }), json!(true)] {
        let refused = read(json!({ "tenant_id": wrong, "company_id": "c" })).await;
        assert_eq!(refused.unwrap_err(), Refusal::NoTenant, "{wrong}");
    }
    let p = read(json!({ "tenant_id": null, "company_id": "c" })).await;
    assert_eq!(p.unwrap().tenant.as_str(), "c");
    let p = read(json!({ "tenant_id": null })).await;
    assert_eq!(p.unwrap().tenant.as_str(), "default");
    for nothing in [
        json!({ "role": "operator", "scopes": [] }),
        json!({ "role": "operator", "scope": "" }),
    ] {
        let p = read(nothing.clone()).await.unwrap();
        assert!(p.scopes.is_empty(), "{nothing}: {:?}", p.scopes);
    }
    let nulls: Value = serde_json::from_str(&format!(
        r#"{{"sub":"s","tenant_id":"t","exp":{},"type":null,"nbf":null,"scope":null,"role":"viewer","jti":7}}"#,
        NOW + 60
    ))
    .unwrap();
    let p = verifier
        .verify(&token(Algorithm::HS256, None, "hs", &nulls))
        .await
        .unwrap();
    assert!(p.has_scope("incident:read"), "null is as good as absent");
    assert_eq!(p.token_id.as_deref(), Some("7"), "so it can be revoked");
}

#[tokio::test]
async fn claims_may_have_addresses_for_names() {
    let config = AuthConfig {
        jwt_secret: Some(SecretString::from(SECRET)),
        claims: Claims {
            tenant: vec!["https://a.example/tenant".into()],
            roles: vec!["https://a.example/app.roles".into()],
            ..Claims::default()
        },
        ..AuthConfig::default()
    };
    let verifier = Verifier::new(config, Clock::manual(Timestamp::from_secs(NOW))).unwrap();
    let claims = json!({
        "sub": "s", "exp": NOW + 60, "https://a.example/tenant": "t", "tenant_id": "other",
        "https://a.example/app": { "roles": ["r"] },
    });
    let p = verifier
        .verify(&token(Algorithm::HS256, None, "hs", &claims))
        .await
        .unwrap();
    assert_eq!((p.tenant.as_str(), p.has_role("r")), ("t", true));
}

#[tokio::test]
async fn a_remembered_token_still_ends() {
    let bed = bed(true, false, false);
    let token = token(Algorithm::HS256, None, "hs", &claims());
    assert!(bed.verifier.verify(&token).await.is_ok());
    bed.clock.advance(Duration::from_secs(89));
    assert!(
        bed.verifier.verify(&token).await.is_ok(),
        "within the leeway"
    );
    bed.clock.advance(Duration::from_secs(1));
    assert_eq!(
        bed.verifier.verify(&token).await.unwrap_err(),
        Refusal::Expired
    );
}

#[test]
fn a_short_secret_is_refused() {
    let config = AuthConfig {
        jwt_secret: Some(SecretString::from("short")),
        ..AuthConfig::default()
    };
    assert_eq!(
        Verifier::new(config, Clock::System).unwrap_err().key,
        "auth.jwt_secret"
    );
}

/// A tiny issuer: answers each path with what it holds, and counts.
struct Issuer {
    address: String,
    pages: Arc<parking_lot::Mutex<std::collections::HashMap<String, String>>>,
    asked: Arc<std::sync::atomic::AtomicUsize>,
}

async fn issuer() -> Issuer {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let issuer = Issuer {
        address,
        pages: Arc::default(),
        asked: Arc::default(),
    };
    let (pages, asked) = (issuer.pages.clone(), issuer.asked.clone());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = vec![0; 8_192];
            let read = socket.read(&mut request).await.unwrap();
            asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let path = String::from_utf8_lossy(&request[..read])
                .split(' ')
                .nth(1)
                .unwrap_or_default()
                .to_owned();
            let page = pages.lock().get(&path).cloned();
            let (status, body) =
                page.map_or(("404 Not Found", String::new()), |body| ("200 OK", body));
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    issuer
}

fn only(names: &[&str]) -> String {
    let keys: Vec<Value> = jwks()["keys"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|k| names.contains(&k["kid"].as_str().unwrap()))
        .cloned()
        .collect();
    json!({ "keys": keys }).to_string()
}

#[tokio::test]
async fn keys_rotate_behind_an_address_without_a_storm() {
    let issuer = issuer().await;
    issuer.pages.lock().insert("/keys".into(), only(&["rsa"]));
    let config = AuthConfig {
        jwks_url: Some(format!("{}/keys", issuer.address)),
        jwks_floor: Duration::from_millis(300),
        ..AuthConfig::default()
    };
    let verifier = Verifier::new(config, Clock::manual(Timestamp::from_secs(NOW))).unwrap();
    let asked = || issuer.asked.load(std::sync::atomic::Ordering::SeqCst);
    let (old, new) = (
        token(Algorithm::RS256, Some("rsa"), "rsa", &claims()),
        token(Algorithm::ES256, Some("p256"), "p256", &claims()),
    );
    assert!(verifier.verify(&old).await.is_ok());
    for _ in 0..20 {
        assert_eq!(
            verifier.verify(&new).await.unwrap_err(),
            Refusal::UnknownKey
        );
    }
    assert_eq!(asked(), 1, "an unknown kid asks again only after the floor");
    issuer.pages.lock().insert("/keys".into(), only(&["p256"]));
    tokio::time::timeout(Duration::from_secs(10), async {
        while verifier.verify(&new).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(asked(), 2);
    // The issuer goes away: what is known stays in use.
    issuer.pages.lock().clear();
    assert!(
        verifier
            .verify(&token(
                Algorithm::ES256,
                Some("p256"),
                "p256",
                &with(json!({ "sub": "2" }))
            ))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_slow_issuer_keeps_nobody_waiting_whose_key_is_known() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let (asked_again, mut is_asked_again) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        let mut request = vec![0; 8_192];
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.read(&mut request).await;
        let body = only(&["rsa"]);
        let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length:";
        let answer = format!("{head} {}\r\n\r\n{body}", body.len());
        socket.write_all(answer.as_bytes()).await.unwrap();
        drop(socket);
        // From now on it takes calls and says nothing.
        let _silent = listener.accept().await.unwrap();
        asked_again.send_replace(true);
        std::future::pending::<()>().await;
    });
    let config = AuthConfig {
        jwks_url: Some(url),
        jwks_refresh: Duration::ZERO,
        jwks_floor: Duration::ZERO,
        ..AuthConfig::default()
    };
    let verifier = Verifier::new(config, Clock::manual(Timestamp::from_secs(NOW))).unwrap();
    let of = |subject: &str| {
        let claims = with(json!({ "sub": subject }));
        token(Algorithm::RS256, Some("rsa"), "rsa", &claims)
    };
    verifier.load_keys().await;
    let (first, second) = (verifier.clone(), of("1"));
    let waits = tokio::spawn(async move { first.verify(&second).await });
    is_asked_again.wait_for(|asked| *asked).await.unwrap();
    let third = of("2");
    let meanwhile = tokio::time::timeout(Duration::from_secs(2), verifier.verify(&third));
    assert!(meanwhile.await.unwrap().is_ok());
    assert!(!waits.is_finished());
    waits.abort();
}

#[tokio::test]
async fn keys_rotate_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwks.json");
    let config = AuthConfig {
        jwks_file: Some(file.clone()),
        ..AuthConfig::default()
    };
    let verifier = Verifier::new(config, Clock::manual(Timestamp::from_secs(NOW))).unwrap();
    let of = |kid: &str, subject: &str| {
        let claims = with(json!({ "sub": subject }));
        match kid {
            "ed" => token(Algorithm::EdDSA, Some("ed"), "ed", &claims),
            _ => token(Algorithm::ES256, Some("p256"), "p256", &claims),
        }
    };
    let refused = verifier.verify(&of("ed", "1")).await.unwrap_err();
    assert_eq!(refused, Refusal::KeysUnavailable, "there is no file yet");
    let write = |text: String, age: u64| {
        std::fs::write(&file, text).unwrap();
        let at = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + age);
        let opened = std::fs::File::options().write(true).open(&file).unwrap();
        opened.set_modified(at).unwrap();
    };
    write(only(&["ed"]), 1);
    assert!(verifier.verify(&of("ed", "1")).await.is_ok());
    write(only(&["p256"]), 2);
    assert!(verifier.verify(&of("p256", "1")).await.is_ok());
    let refused = verifier.verify(&of("ed", "2")).await.unwrap_err();
    assert_eq!(refused, Refusal::UnknownKey, "its key has gone");
    write("half a docu".into(), 3);
    assert!(verifier.verify(&of("p256", "2")).await.is_ok());
}

#[tokio::test]
async fn a_name_may_stand_for_keys_of_several_kinds_and_none_does_what_it_is_not_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwks.json");
    let mut set: Value = serde_json::from_str(&only(&["rsa", "p256", "ed"])).unwrap();
    for key in set["keys"].as_array_mut().unwrap() {
        if key["kid"] == "ed" {
            key["key_ops"] = json!(["sign"]);
        } else {
            key["kid"] = "one".into();
        }
    }
    std::fs::write(&file, set.to_string()).unwrap();
    let config = AuthConfig {
        jwks_file: Some(file),
        ..AuthConfig::default()
    };
    let verifier = Verifier::new(config, Clock::manual(Timestamp::from_secs(NOW))).unwrap();
    for (algorithm, signer) in [(Algorithm::RS256, "rsa"), (Algorithm::ES256, "p256")] {
        let token = token(algorithm, Some("one"), signer, &claims());
        assert!(verifier.verify(&token).await.is_ok(), "{signer}");
    }
    let token = token(Algorithm::EdDSA, Some("ed"), "ed", &claims());
    assert_eq!(
        verifier.verify(&token).await.unwrap_err(),
        Refusal::Algorithm
    );
}

#[tokio::test]
async fn discovery_takes_only_the_issuer_that_was_asked() {
    let issuer = issuer().await;
    let document = |of: &str| {
        json!({ "issuer": of, "jwks_uri": format!("{}/keys", issuer.address) }).to_string()
    };
    issuer.pages.lock().insert("/keys".into(), only(&["ed"]));
    let config = AuthConfig {
        issuer: Some(issuer.address.clone()),
        jwks_floor: Duration::ZERO,
        ..AuthConfig::default()
    };
    let verifier = Verifier::new(config, Clock::manual(Timestamp::from_secs(NOW))).unwrap();
    let token = token(
        Algorithm::EdDSA,
        Some("ed"),
        "ed",
        &with(json!({ "iss": issuer.address })),
    );
    assert_eq!(
        verifier.verify(&token).await.unwrap_err(),
        Refusal::KeysUnavailable,
        "nothing there"
    );
    issuer.pages.lock().insert(
        "/.well-known/openid-configuration".into(),
        document("https://evil"),
    );
    assert_eq!(
        verifier.verify(&token).await.unwrap_err(),
        Refusal::KeysUnavailable,
        "another issuer's document"
    );
    issuer.pages.lock().insert(
        "/.well-known/openid-configuration".into(),
        document(&issuer.address),
    );
    assert!(verifier.verify(&token).await.is_ok());
    issuer.pages.lock().insert(
        "/keys".into(),
        format!("{{\"keys\":[]}}{}", " ".repeat(1024 * 1024)),
    );
    assert!(
        verifier.verify(&token).await.is_ok(),
        "a document over the limit changes nothing"
    );
}

proptest! {
    #[test]
    fn no_text_is_a_token_and_none_panics(text in "\\PC{0,80}|[A-Za-z0-9_-]{0,30}(\\.[A-Za-z0-9_-]{0,30}){2}") {
        let bed = bed(true, false, false);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        prop_assert!(runtime.block_on(bed.verifier.verify(&text)).is_err());
    }

    /// Whatever a token says beside its tenant claim, it never gets another tenant.
    #[test]
    fn a_tenant_comes_from_its_claim_alone(name in "[a-z_]{1,12}", value in "[a-z]{1,8}") {
        prop_assume!(!["sub", "exp", "iat", "nbf", "iss", "aud", "type", "tenant_id"].contains(&name.as_str()));
        let bed = bed(true, false, false);
        let token = token(Algorithm::HS256, None, "hs", &with(json!({ name: value })));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let principal = runtime.block_on(bed.verifier.verify(&token)).unwrap();
        prop_assert_eq!(principal.tenant.as_str(), "t");
    }
}
