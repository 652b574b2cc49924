//! A server of the test's own, and small clients that see every byte.
//!
//! - `server`: the real binary
//! - `request`: requests and answers
//! - `sse`: streams

mod request;
mod server;
mod sse;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub(crate) use request::{Answer, Request};
pub(crate) use server::{Server, Setup};
pub(crate) use sse::{Frame, Sse};

/// The secret of every test server.
pub(crate) const SECRET: &str = "a secret that only the tests know, long enough";
/// How long anything may take before the test says that it does not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A token of a tenant.
pub(crate) fn token_of(tenant: &str, subject: &str, more: &Value) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let mut claims =
        json!({ "tenant_id": tenant, "sub": subject, "exp": now + 3_600, "iat": now - 5 });
    claims
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    claims
        .as_object_mut()
        .unwrap()
        .retain(|_, value| !value.is_null());
    sign(&claims, SECRET)
}

pub(crate) fn sign(claims: &Value, secret: &str) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).unwrap()
}

/// An administrator of tenant `a`.
pub(crate) fn admin() -> String {
    token_of("a", "root", &json!({ "roles": ["admin"] }))
}

/// Somebody of tenant `a` who may publish and read what no module owns.
pub(crate) fn user(subject: &str) -> String {
    token_of(
        "a",
        subject,
        &json!({ "scope": "events:read events:write" }),
    )
}

/// Waits until something holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "{what} does not come true");
        std::thread::yield_now();
    }
}

/// A fresh database on the server that the environment names.
pub(crate) fn postgres() -> Option<String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let Ok(url) = std::env::var("TIDINGS_TEST_POSTGRES_URL") else {
        assert!(
            std::env::var("CI").is_err(),
            "TIDINGS_TEST_POSTGRES_URL must name a PostgreSQL server in CI: see ./x test"
        );
        eprintln!("not run on PostgreSQL: TIDINGS_TEST_POSTGRES_URL is not set (./x test sets it)");
        return None;
    };
    let name = format!(
        "server_{}_{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let made = std::thread::spawn(move || {
        let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
        // A server that outlives the run may have one of an earlier process of this number.
        for statement in ["DROP DATABASE IF EXISTS", "CREATE DATABASE"] {
            client
                .batch_execute(&format!("{statement} {name}"))
                .unwrap();
        }
        format!("{}/{name}", url.rsplit_once('/').unwrap().0)
    });
    Some(made.join().unwrap())
}

/// A free port that nobody else of this run is given.
pub(crate) fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string()
}
