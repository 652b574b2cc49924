//! Tokens that must be refused, each for its own reason.

use super::Refusal::{
    Audience, Expired, Expiry, Issuer, Malformed, NoTenant, NotYet, Signature, Subject, TokenType,
    UnknownKey,
};
use super::*;
use crate::auth::Refusal::{Algorithm as WrongAlgorithm, Header as WrongHeader};

/// That each token is refused, for its reason.
async fn refuses<const N: usize>(bed: &Bed, tokens: [(&str, String, Refusal); N]) {
    for (what, token, refusal) in &tokens {
        let result = bed.verifier.verify(token).await;
        assert_eq!(result.unwrap_err(), *refusal, "{what}");
        // Also the second time, when something might have been remembered.
        assert!(bed.verifier.verify(token).await.is_err(), "{what}");
        assert!(token.len() < 8 || !refusal.to_string().contains(token.as_str()));
    }
}

fn both() -> Bed {
    bed(true, true, false)
}

/// Signed as it should be.
fn hs(claims: &Value) -> String {
    token(Algorithm::HS256, None, "hs", claims)
}

/// The right claims but for these changes, signed as they should be.
fn but(changes: Value) -> String {
    hs(&with(changes))
}

/// A header of the test's own, signed with the shared secret.
fn headed(header: &Value) -> String {
    forged(header, &claims(), hs256(SECRET.as_bytes()))
}

fn unsigned(header: &Value) -> String {
    forged(header, &claims(), |_| String::new())
}

fn signed_by(key: &[u8], header: &Value) -> String {
    forged(header, &claims(), hs256(key))
}

fn named(algorithm: Algorithm, kid: &str, signer: &str) -> String {
    token(algorithm, Some(kid), signer, &claims())
}

#[tokio::test]
async fn what_is_no_token() {
    let other = URL_SAFE_NO_PAD.encode(with(json!({ "sub": "root" })).to_string());
    let good = hs(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let list = forged(
        &json!({ "alg": "HS256" }),
        &json!([1]),
        hs256(SECRET.as_bytes()),
    );
    let no_json = format!("{}.{other}.x", URL_SAFE_NO_PAD.encode("{"));
    let swapped = [parts[0], &other, parts[2]].join(".");
    let table = [
        ("nothing", String::new(), Malformed),
        ("no token at all", "Bearer".into(), Malformed),
        ("two parts", "a.b".into(), Malformed),
        ("four parts", format!("{good}.x"), Malformed),
        (
            "a header that is no base64",
            format!("!.{other}.x"),
            Malformed,
        ),
        ("a header that is no JSON", no_json, Malformed),
        ("claims that are no object", list, Malformed),
        ("17 KiB", "x".repeat(17 * 1024), Malformed),
        ("a cut signature", good[..good.len() - 4].into(), Malformed),
        ("other claims under the signature", swapped, Signature),
    ];
    refuses(&both(), table).await;
}

#[tokio::test]
async fn algorithms_that_are_not_promised() {
    let none = |alg: &str| unsigned(&json!({ "alg": alg }));
    let small = headed(&json!({ "alg": "hs256" }));
    let (ps384, ps512) = (
        named(Algorithm::PS384, "rsa", "rsa"),
        named(Algorithm::PS512, "rsa", "rsa"),
    );
    let table = [
        ("none", none("none"), WrongAlgorithm),
        ("None", none("None"), WrongAlgorithm),
        ("NONE", none("NONE"), WrongAlgorithm),
        ("missing", unsigned(&json!({})), Malformed),
        ("HS1", none("HS1"), WrongAlgorithm),
        ("in other letters", small, WrongAlgorithm),
        ("PS384", ps384, WrongAlgorithm),
        ("PS512", ps512, WrongAlgorithm),
    ];
    refuses(&both(), table).await;
}

#[tokio::test]
async fn algorithms_that_are_not_the_keys() {
    let rsa_public = jwks()["keys"][0]["n"].as_str().unwrap().to_owned();
    let hs_of_rsa = json!({ "alg": "HS256", "kid": "rsa" });
    let public = signed_by(rsa_public.as_bytes(), &hs_of_rsa);
    let shared = headed(&json!({ "alg": "HS256", "kid": "shared" }));
    let keys_only = [
        ("the RSA public key as secret", public, WrongAlgorithm),
        ("HS256 by a key of the JWKS", shared, WrongAlgorithm),
        ("HS256 without a secret", hs(&claims()), WrongAlgorithm),
    ];
    refuses(&bed(false, true, false), keys_only).await;
    let rs256 = named(Algorithm::RS256, "rsa", "rsa");
    let secret_only = [("RS256 where only a secret is set", rs256, WrongAlgorithm)];
    refuses(&bed(true, false, false), secret_only).await;
    let pem = signed_by(pem("rsa"), &hs_of_rsa);
    let family = named(Algorithm::RS256, "p256", "rsa");
    let curve = named(Algorithm::ES256, "p384", "p256");
    let eddsa = named(Algorithm::EdDSA, "rsa", "ed");
    let encryption = named(Algorithm::RS256, "for-encryption", "rsa2");
    let pinned = named(Algorithm::RS256, "pinned", "rsa");
    let table = [
        ("HS256 with the RSA PEM as secret", pem, Signature),
        ("a key named for another family", family, WrongAlgorithm),
        ("ES256 by the P-384 key's name", curve, WrongAlgorithm),
        ("EdDSA by the RSA key's name", eddsa, WrongAlgorithm),
        ("a key for encryption", encryption, WrongAlgorithm),
        ("a key pinned to RS512", pinned, WrongAlgorithm),
    ];
    refuses(&both(), table).await;
}

#[tokio::test]
async fn signatures_of_somebody_else() {
    let hs256 = json!({ "alg": "HS256" });
    let other = signed_by(b"another secret of thirty-two bytes", &hs256);
    let table = [
        ("another secret", other, Signature),
        ("an empty secret", signed_by(b"", &hs256), Signature),
        ("no signature", unsigned(&hs256), Signature),
        (
            "another RSA key under the name",
            named(Algorithm::RS256, "rsa", "rsa2"),
            Signature,
        ),
    ];
    refuses(&both(), table).await;
}

#[tokio::test]
async fn headers_that_name_a_key_wrongly_or_bring_their_own() {
    let with_header = |name: &str, value: Value| {
        let mut header = json!({ "alg": "HS256", "typ": "JWT" });
        header[name] = value;
        headed(&header)
    };
    let nobody = named(Algorithm::RS256, "nobody", "rsa");
    let path = named(Algorithm::RS256, "../../dev/null", "rsa");
    let unnamed = token(Algorithm::RS512, None, "rsa", &claims());
    let embedded = with_header("jwk", json!({ "kty": "oct", "k": "AAAA" }));
    let address = with_header("jku", json!("http://127.0.0.1:1/keys"));
    let certificate = with_header("x5u", json!("http://127.0.0.1:1/cert"));
    let critical = headed(&json!({ "alg": "HS256", "typ": "JWT", "crit": ["b64"], "b64": false }));
    let table = [
        ("an unknown kid", nobody, UnknownKey),
        ("a kid that is a path", path, UnknownKey),
        ("no kid where two keys fit", unnamed, UnknownKey),
        (
            "a kid that is no text",
            with_header("kid", json!(1)),
            Malformed,
        ),
        ("an embedded key", embedded, WrongHeader),
        ("a key's address", address, WrongHeader),
        ("a certificate's address", certificate, WrongHeader),
        (
            "a certificate",
            with_header("x5c", json!(["AAAA"])),
            WrongHeader,
        ),
        ("a critical extension", critical, WrongHeader),
    ];
    refuses(&both(), table).await;
}

#[tokio::test]
async fn times_that_are_over_or_not_yet_or_none() {
    let exp = |exp: Value| but(json!({ "exp": exp }));
    let nbf = |nbf: Value| but(json!({ "nbf": nbf }));
    let table = [
        ("expired", exp(json!(NOW - 31)), Expired),
        ("expired to the second", exp(json!(NOW - 30)), Expired),
        ("expired long before the epoch", exp(json!(-1)), Expired),
        ("no exp", exp(Value::Null), Expiry),
        ("exp as text", exp(json!((NOW + 60).to_string())), Expiry),
        ("exp far too large", exp(json!(1e300)), Expiry),
        ("not yet", nbf(json!(NOW + 31)), NotYet),
        ("nbf as text", nbf(json!("soon")), Malformed),
    ];
    refuses(&both(), table).await;
}

#[tokio::test]
async fn claims_of_nobody_or_of_no_tenant() {
    let sub = |sub: Value| but(json!({ "sub": sub }));
    let tenant = |tenant: Value| but(json!({ "tenant_id": tenant }));
    let of_type = |of_type: Value| but(json!({ "type": of_type }));
    let large = format!(
        r#"{{"sub":"s","exp":{},"tenant_id":36893488147419103233}}"#,
        NOW + 60
    );
    let large = forged(
        &json!({ "alg": "HS256" }),
        &serde_json::from_str(&large).unwrap(),
        hs256(SECRET.as_bytes()),
    );
    let table = [
        ("no subject", sub(Value::Null), Subject),
        ("an empty subject", sub(json!("")), Subject),
        ("a subject that is a list", sub(json!(["s"])), Subject),
        ("no tenant", tenant(Value::Null), NoTenant),
        ("an empty tenant", tenant(json!("")), NoTenant),
        (
            "a tenant that is no whole number",
            tenant(json!(1.5)),
            NoTenant,
        ),
        ("a tenant too large to be read exactly", large, NoTenant),
        (
            "a tenant with a line break",
            tenant(json!("a\nb")),
            NoTenant,
        ),
        ("a refresh token", of_type(json!("refresh")), TokenType),
        ("a type that is no text", of_type(json!(1)), TokenType),
    ];
    refuses(&both(), table).await;
}

#[tokio::test]
async fn tokens_of_another_issuer_or_for_another_audience() {
    let strict = bed(true, false, true);
    let signed = |issuer: Value, audience: Value| but(json!({ "iss": issuer, "aud": audience }));
    let (i, a) = (json!("i"), json!("a"));
    let table = [
        ("no issuer", signed(Value::Null, a.clone()), Issuer),
        ("another issuer", signed(json!("i/"), a), Issuer),
        ("no audience", signed(i.clone(), Value::Null), Audience),
        (
            "another audience",
            signed(i.clone(), json!(["b", "c"])),
            Audience,
        ),
    ];
    refuses(&strict, table).await;
    let among_others = signed(i, json!(["b", "a"]));
    assert!(strict.verifier.verify(&among_others).await.is_ok());
}
