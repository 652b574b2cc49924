//! Claims of tokens that this server's secret signs, put where its own configuration looks for them.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value, json};
use tidings_core::auth::AuthConfig;
use tidings_core::clock::Timestamp;
use tidings_core::event::EventId;

/// Claims on their way into a token.
#[derive(Debug)]
pub(crate) struct Claims<'a> {
    auth: &'a AuthConfig,
    members: Map<String, Value>,
}

impl<'a> Claims<'a> {
    /// None yet.
    pub(crate) fn new(auth: &'a AuthConfig) -> Self {
        Self {
            auth,
            members: Map::new(),
        }
    }

    /// Puts a claim at the first of the paths, at its standard name where there are none.
    pub(crate) fn put(&mut self, paths: &[String], standard: &str, value: Value) {
        let path = paths.first().map_or(standard, String::as_str);
        let parts: Vec<_> = path
            .split('.')
            .map(|part| part.replace("<audience>", self.audience()))
            .collect();
        insert(&mut self.members, &parts, value);
    }

    /// Scopes: a text where the claim is one that holds several in one text, else a list.
    pub(crate) fn put_scopes(&mut self, scopes: &[&str]) {
        let paths = &self.auth.claims.scopes;
        let path = paths.first().map_or("scope", String::as_str);
        let is_text = path == "scope" || path.ends_with(".scope");
        let value = if is_text {
            json!(scopes.join(" "))
        } else {
            json!(scopes)
        };
        self.put(paths, "scope", value);
    }

    /// Adds what every token has, and gives them all.
    pub(crate) fn finish(mut self, now: Timestamp, ttl: Duration) -> Value {
        self.put(&[], "iat", json!(now.as_secs()));
        self.put(&[], "exp", json!(now.plus(ttl).as_secs()));
        self.put(&[], "jti", json!(EventId::random(now).to_string()));
        self.put(&[], "type", json!("access"));
        if let Some(issuer) = &self.auth.issuer {
            self.put(&[], "iss", json!(issuer));
        }
        if !self.audience().is_empty() {
            self.put(&[], "aud", json!(self.audience()));
        }
        Value::Object(self.members)
    }

    fn audience(&self) -> &'a str {
        self.auth.audience.first().map_or("", String::as_str)
    }
}

/// Signs claims with the shared secret; none where there is no secret, or it cannot sign.
pub(crate) fn sign(auth: &AuthConfig, claims: &Value) -> Option<String> {
    let secret = auth.jwt_secret.as_ref()?.expose_secret();
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(&Header::new(Algorithm::HS256), claims, &key).ok()
}

fn insert(object: &mut Map<String, Value>, path: &[String], value: Value) {
    match path {
        [] => {}
        [name] => {
            object.insert(name.clone(), value);
        }
        [name, rest @ ..] => {
            let inner = object.entry(name.clone()).or_insert_with(|| json!({}));
            if let Value::Object(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}
