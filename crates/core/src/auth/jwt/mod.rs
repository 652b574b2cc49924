//! A token to a principal: JWT (RFC 7519) signed by a shared secret or by an issuer's keys, checked as RFC 8725 advises.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use moka::sync::Cache;
use secrecy::ExposeSecret;
use serde_json::{Map, Value};

use super::config::{AuthConfig, AuthConfigError};
use super::jwks::Keys;
use super::principal::{Principal, Refusal};
use crate::clock::{Clock, Timestamp};
use crate::tenant::Tenant;

/// The shortest shared secret, in bytes (RFC 7518, section 3.2: as long as the hash).
pub const MIN_SECRET_BYTES: usize = 32;
/// The longest token, in bytes.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Verified tokens that are remembered: a herd that reconnects is not verified again one by one.
const CACHED_TOKENS: u64 = 20_000;
/// How long a verified token is remembered, so that a key that is withdrawn is soon of no use.
const CACHE_TIME: Duration = Duration::from_secs(60);
/// Header members with which a token could bring its own key, or demand what we do not know.
const FORBIDDEN_HEADERS: [&str; 5] = ["jwk", "jku", "x5u", "x5c", "crit"];

struct Shared {
    config: AuthConfig,
    clock: Clock,
    secret: Option<DecodingKey>,
    keys: Option<Keys>,
    verified: Cache<[u8; 32], Arc<Verified>>,
}

/// A token whose signature holds; its times are looked at each time.
struct Verified {
    principal: Arc<Principal>,
    not_before: Option<Timestamp>,
}

/// Verifies tokens. Cheap to clone.
#[derive(Clone)]
pub struct Verifier(Arc<Shared>);

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier")
    }
}

impl Verifier {
    /// Checks the settings. Without any secret or keys every token is refused.
    pub fn new(config: AuthConfig, clock: Clock) -> Result<Self, AuthConfigError> {
        let secret = config
            .jwt_secret
            .as_ref()
            .map(|s| s.expose_secret().as_bytes());
        if secret.is_some_and(|s| s.len() < MIN_SECRET_BYTES) {
            let why = format!(
                "a secret of at least {MIN_SECRET_BYTES} bytes; `tidings keygen` makes one"
            );
            return Err(AuthConfigError {
                key: "auth.jwt_secret",
                why,
            });
        }
        let secret = secret.map(DecodingKey::from_secret);
        let keys = Keys::of(&config)?;
        let verified = Cache::builder()
            .max_capacity(CACHED_TOKENS)
            .time_to_live(CACHE_TIME)
            .build();
        Ok(Self(Arc::new(Shared {
            config,
            clock,
            secret,
            keys,
            verified,
        })))
    }

    /// Fetches the issuer's keys ahead of the first token. What goes wrong is logged and tried again with a token.
    pub async fn load_keys(&self) {
        if let Some(keys) = &self.0.keys {
            keys.refresh().await;
        }
    }

    /// Verifies a token.
    pub async fn verify(&self, token: &str) -> Result<Arc<Principal>, Refusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Refusal::Malformed);
        }
        let hash = digest::digest(&digest::SHA256, token.as_bytes());
        let mut key = [0u8; 32];
        key.copy_from_slice(hash.as_ref());
        let verified = match self.0.verified.get(&key) {
            Some(verified) => verified,
            None => {
                // Boxed: the rare way must not make every request's future large.
                let verified = Arc::new(Box::pin(self.decode(token)).await?);
                self.check_times(&verified)?;
                self.0.verified.insert(key, verified.clone());
                verified
            }
        };
        self.check_times(&verified)?;
        Ok(verified.principal.clone())
    }

    fn check_times(&self, verified: &Verified) -> Result<(), Refusal> {
        let (now, leeway) = (self.0.clock.now(), self.0.config.leeway);
        if verified.principal.expires_at.plus(leeway) <= now {
            return Err(Refusal::Expired);
        }
        if verified.not_before.is_some_and(|at| at > now.plus(leeway)) {
            return Err(Refusal::NotYet);
        }
        Ok(())
    }

    async fn decode(&self, token: &str) -> Result<Verified, Refusal> {
        let header = header(token)?;
        if FORBIDDEN_HEADERS
            .iter()
            .any(|name| header.contains_key(*name))
        {
            return Err(Refusal::Header);
        }
        let algorithm = algorithm(
            header
                .get("alg")
                .and_then(Value::as_str)
                .ok_or(Refusal::Malformed)?,
        )?;
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.as_str()),
            Some(_) => return Err(Refusal::Malformed),
        };
        let is_symmetric = matches!(
            algorithm,
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512
        );
        let claims = if is_symmetric {
            signed(
                token,
                self.0.secret.as_ref().ok_or(Refusal::Algorithm)?,
                algorithm,
            )?
        } else {
            let keys = self.0.keys.as_ref().ok_or(Refusal::Algorithm)?;
            let key = keys.find(kid, algorithm).await?;
            signed(token, &key, algorithm)?
        };
        self.read(&claims)
    }

    /// Reads what a token says, by the configured paths.
    fn read(&self, claims: &Value) -> Result<Verified, Refusal> {
        let config = &self.0.config;
        if let Some(kind) = given(claims, "type") {
            // A refresh token is signed by the same issuer, and is good for nothing here.
            if kind.as_str() != Some("access") {
                return Err(Refusal::TokenType);
            }
        }
        let issuer = claims.get("iss").and_then(Value::as_str);
        if config.issuer.is_some() && issuer != config.issuer.as_deref() {
            return Err(Refusal::Issuer);
        }
        if !config.audience.is_empty()
            && !texts(claims.get("aud"))
                .iter()
                .any(|aud| config.audience.contains(aud))
        {
            return Err(Refusal::Audience);
        }
        let expires_at = time(claims.get("exp")).ok_or(Refusal::Expiry)?;
        let not_before = match given(claims, "nbf") {
            None => None,
            Some(value) => Some(time(Some(value)).ok_or(Refusal::Malformed)?),
        };
        let subject = self
            .first(claims, &config.claims.subject, Refusal::Subject)?
            .ok_or(Refusal::Subject)?;
        let tenant = match self.first(claims, &config.claims.tenant, Refusal::NoTenant)? {
            Some(name) => Some(name),
            None => issuer.and_then(|issuer| config.issuer_tenants.get(issuer).cloned()),
        };
        let tenant = match tenant {
            Some(name) => Tenant::new(&name).map_err(|_| Refusal::NoTenant)?,
            None => config.default_tenant.clone().ok_or(Refusal::NoTenant)?,
        };
        let mut roles: BTreeSet<String> =
            self.all(claims, &config.claims.roles).into_iter().collect();
        if roles.is_empty() {
            roles.extend(
                config
                    .directory
                    .get(&subject)
                    .into_iter()
                    .flatten()
                    .cloned(),
            );
        }
        let scopes = self.scopes(claims, &roles);
        let principal = Principal {
            tenant,
            subject: subject.into(),
            roles,
            scopes,
            patient_ids: self
                .all(claims, &config.claims.patient_ids)
                .into_iter()
                .collect(),
            expires_at,
            issued_at: time(claims.get("iat")),
            token_id: claims.get("jti").and_then(text),
            digest: crate::auth::RightsDigest::default(),
        };
        Ok(Verified {
            principal: Arc::new(principal),
            not_before,
        })
    }

    /// What a token is good for. One that lists nothing is good for nothing; only one without any list has what the
    /// table says of its roles.
    fn scopes(&self, claims: &Value, roles: &BTreeSet<String>) -> BTreeSet<String> {
        let config = &self.0.config;
        let paths = &config.claims.scopes;
        if paths.iter().all(|path| self.at(claims, path).is_empty()) {
            let table = roles.iter().filter_map(|role| config.role_scopes.get(role));
            return table.flatten().cloned().collect();
        }
        self.all(claims, paths)
            .iter()
            .flat_map(|s| s.split_whitespace())
            .map(str::to_owned)
            .collect()
    }

    /// The text or number at the first path that is there. One that cannot be read is refused: neither another claim nor
    /// a default may take its place.
    fn first(
        &self,
        claims: &Value,
        paths: &[String],
        refusal: Refusal,
    ) -> Result<Option<String>, Refusal> {
        let found = paths
            .iter()
            .flat_map(|path| self.at(claims, path))
            .next()
            .map(|value| text(value).filter(|t| !t.is_empty()).ok_or(refusal));
        found.transpose()
    }

    /// Every text among several paths.
    fn all(&self, claims: &Value, paths: &[String]) -> Vec<String> {
        paths
            .iter()
            .flat_map(|path| self.at(claims, path))
            .flat_map(|value| texts(Some(value)))
            .collect()
    }

    /// What stands at a path: one value, or one for each audience. What is null is not there.
    fn at<'a>(&self, claims: &'a Value, path: &str) -> Vec<&'a Value> {
        if !path.contains("<audience>") {
            return walk(claims, path).into_iter().collect();
        }
        let audiences = self.0.config.audience.iter();
        audiences
            .filter_map(|audience| walk(claims, &path.replace("<audience>", audience)))
            .collect()
    }
}

/// Follows a dotted path. Names may have dots themselves, as audiences and claims that are addresses do.
fn walk<'a>(claims: &'a Value, path: &str) -> Option<&'a Value> {
    if let Some(value) = given(claims, path) {
        return Some(value);
    }
    path.match_indices('.').find_map(|(at, _)| {
        let inner = claims.get(&path[..at]).filter(|v| v.is_object())?;
        walk(inner, &path[at + 1..])
    })
}

fn given<'a>(claims: &'a Value, name: &str) -> Option<&'a Value> {
    claims.get(name).filter(|value| !value.is_null())
}

fn header(token: &str) -> Result<Map<String, Value>, Refusal> {
    let mut parts = token.split('.');
    let (Some(header), Some(_), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::Malformed);
    };
    let header = URL_SAFE_NO_PAD
        .decode(header)
        .map_err(|_| Refusal::Malformed)?;
    serde_json::from_slice(&header).map_err(|_| Refusal::Malformed)
}

fn algorithm(name: &str) -> Result<Algorithm, Refusal> {
    Ok(match name {
        "HS256" => Algorithm::HS256,
        "HS384" => Algorithm::HS384,
        "HS512" => Algorithm::HS512,
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "EdDSA" => Algorithm::EdDSA,
        _ => return Err(Refusal::Algorithm),
    })
}

/// The claims of a token whose signature holds. The library only verifies: its reading of claims gives up on members of
/// another type than it expects, before we can say which one is wrong.
fn signed(token: &str, key: &DecodingKey, algorithm: Algorithm) -> Result<Value, Refusal> {
    let (message, signature) = token.rsplit_once('.').ok_or(Refusal::Malformed)?;
    let holds = jsonwebtoken::crypto::verify(signature, message.as_bytes(), key, algorithm);
    let holds = holds.map_err(|e| match e.kind() {
        jsonwebtoken::errors::ErrorKind::Base64(_) => Refusal::Malformed,
        jsonwebtoken::errors::ErrorKind::InvalidAlgorithm => Refusal::Algorithm,
        _ => Refusal::Signature,
    })?;
    if !holds {
        return Err(Refusal::Signature);
    }
    let (_, claims) = message.split_once('.').ok_or(Refusal::Malformed)?;
    let claims = URL_SAFE_NO_PAD
        .decode(claims)
        .map_err(|_| Refusal::Malformed)?;
    let claims: Map<String, Value> =
        serde_json::from_slice(&claims).map_err(|_| Refusal::Malformed)?;
    Ok(Value::Object(claims))
}

/// A `NumericDate`: seconds since the epoch, perhaps with a fraction.
fn time(value: Option<&Value>) -> Option<Timestamp> {
    let number = value?.as_number()?;
    if let Some(secs) = number.as_i64() {
        return Some(Timestamp::from_secs(secs));
    }
    let secs = number
        .as_f64()
        .filter(|s| s.is_finite() && s.abs() < 1e12)?;
    let fraction = Duration::try_from_secs_f64(secs.abs()).ok()?;
    let zero = Timestamp::from_secs(0);
    Some(if secs < 0.0 {
        zero.minus(fraction)
    } else {
        zero.plus(fraction)
    })
}

/// A text, or a whole number as one. Other numbers are read inexactly: two of them could become one text.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}

fn texts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Array(all)) => all.iter().filter_map(text).collect(),
        Some(one) => text(one).into_iter().collect(),
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
