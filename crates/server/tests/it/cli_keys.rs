//! `tidings token` and `keygen`: what they make is what a server takes.

use std::path::Path;

use serde_json::{Value, json};

use crate::cli::{line, text, tidings};
use crate::support::{SECRET, Setup, admin, eventually};

fn claims(token: &str) -> Value {
    let key = jsonwebtoken::DecodingKey::from_secret(SECRET.as_bytes());
    let mut checks = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
    checks.validate_aud = false;
    jsonwebtoken::decode(token, &key, &checks).unwrap().claims
}

#[test]
fn a_token_is_printed_alone_and_is_what_was_asked_for() {
    let server = Setup::default().start();
    let words = "token --tenant a --subject nurse-7 --role nurse --role lead --scope events:read --scope events:write --patient-id 1 --patient-id 2 --ttl 90m";
    let out = line(words).env("TIDINGS_AUTH_JWT_SECRET", SECRET).is(0).out;
    let token = out.strip_suffix('\n').unwrap();
    assert!(!token.contains(char::is_whitespace));
    let said = claims(token);
    assert_eq!(
        (&said["tenant_id"], &said["sub"]),
        (&json!("a"), &json!("nurse-7"))
    );
    assert_eq!(said["roles"], json!(["nurse", "lead"]));
    assert_eq!(said["scope"], "events:read events:write");
    assert_eq!(said["patient_ids"], json!(["1", "2"]));
    assert_eq!(
        said["exp"].as_u64().unwrap() - said["iat"].as_u64().unwrap(),
        5_400
    );
    server.publish(token, "x", &json!(1));
    // Several scopes in one, as the claim itself has them; the secret by its old name, or from a file.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.toml");
    std::fs::write(
        &file,
        format!("[auth]\njwt_secret = \"{SECRET}\"\nissuer = \"me\"\naudience = [\"app\"]\n"),
    )
    .unwrap();
    let words = [
        "token",
        "--tenant",
        "a",
        "--subject",
        "s",
        "--scope",
        "events:write  events:read",
    ];
    let out = tidings(words).env("SECRET_KEY", SECRET).is(0).out;
    server.publish(out.trim(), "x", &json!(2));
    let said = claims(tidings(words).arg("--config").arg(&file).is(0).out.trim());
    assert_eq!(said["scope"], "events:write events:read");
    assert_eq!((&said["iss"], &said["aud"]), (&json!("me"), &json!("app")));
    // The default is an hour.
    assert_eq!(
        said["exp"].as_u64().unwrap() - said["iat"].as_u64().unwrap(),
        3_600
    );
    let short = tidings(["token", "--tenant", "a", "--subject", "s"])
        .env("TIDINGS_AUTH_JWT_SECRET", "short")
        .is(2);
    assert!(
        short.err.contains("auth.jwt_secret") && !short.err.contains("short\""),
        "{}",
        short.err
    );
}

#[test]
fn a_generated_secret_serves() {
    let secret = line("keygen").is(0).out;
    assert_ne!(secret, line("keygen").is(0).out);
    let folder = tempfile::tempdir().unwrap();
    let server = line("serve --listen 127.0.0.1:0 --data-dir .")
        .env("TIDINGS_AUTH_JWT_SECRET", secret.trim())
        .within(folder.path())
        .spawn();
    let url = server.line().replace("listening on ", "");
    let token = line("token --tenant t --subject s --role admin")
        .env("TIDINGS_AUTH_JWT_SECRET", secret.trim())
        .is(0)
        .out;
    // Address and token from the environment.
    let published = line("publish --topic a --type t --data 1")
        .env("TIDINGS_URL", &url)
        .env("TIDINGS_TOKEN", &token)
        .is(0);
    assert_eq!(published.json()[0]["ids"].as_array().unwrap().len(), 1);
}

#[test]
fn a_key_pair_signs_what_its_jwks_verifies() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    let sign = |key: &Path| {
        let words = "token --tenant a --subject s --role admin --key";
        line(words).arg(key).is(0).out.trim().to_owned()
    };
    let mut old = Vec::new();
    for alg in ["ES256", "EdDSA", "RS256"] {
        let made = line("keygen --alg")
            .arg(alg)
            .arg("--jwks")
            .arg(&keys)
            .is(0)
            .out;
        let made: Vec<&str> = made.lines().collect();
        assert_eq!(
            made[..2],
            [
                text(&keys.join("private.pem")),
                text(&keys.join("jwks.json"))
            ]
        );
        assert!(made[2].starts_with("kid "), "{made:?}");
        let refused = line("keygen --jwks").arg(&keys).is(1);
        assert!(refused.err.contains("never overwritten"), "{}", refused.err);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = keys
                .join("private.pem")
                .metadata()
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let moved = folder.path().join(format!("{alg}.pem"));
        std::fs::rename(keys.join("private.pem"), &moved).unwrap();
        old.push(moved);
    }
    let jwks = keys.join("jwks.json");
    let server = line("serve --listen 127.0.0.1:0 --data-dir . --set")
        .arg(format!("auth.jwks_file={}", text(&jwks)))
        .within(folder.path())
        .spawn();
    let url = server.line().replace("listening on ", "");
    let publish = |token: &str| {
        line("publish --topic a --type t --url")
            .arg(&url)
            .arg("--token")
            .arg(token)
    };
    for key in &old {
        publish(&sign(key)).is(0);
    }
    publish(&admin()).is(1);
    // A key that is made while the server runs.
    line("keygen --jwks").arg(&keys).is(0);
    let fresh = sign(&keys.join("private.pem"));
    eventually("the new key counts", || {
        publish(&fresh).run().code == Some(0)
    });
}
