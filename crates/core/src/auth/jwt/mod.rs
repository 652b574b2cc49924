//! A token to a principal: JWT (RFC 7519) signed by a shared secret or by an issuer's keys, checked as RFC 8725 advises.

mod parse;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use jsonwebtoken::{Algorithm, DecodingKey};
use moka::sync::Cache;
use secrecy::ExposeSecret;
use serde_json::Value;

use super::config::{AuthConfig, AuthConfigError};
use super::jwks::Keys;
use super::principal::{Principal, Refusal};
use crate::clock::{Clock, Timestamp};
use crate::tenant::Tenant;
use parse::{algorithm, given, header, signed, text, texts, time, walk};

/// The shortest shared secret, in bytes (RFC 7518, section 3.2: as long as the hash).
pub const MIN_SECRET_BYTES: usize = 32;
/// The claim of a local user's token that says under which of their passwords it was signed.
pub const PASSWORD_NUMBER: &str = "password_number";
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

/// Whom a token names, whether or not it names a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The subject.
    pub subject: String,
    /// The tenant, where it names one.
    pub tenant: Option<Tenant>,
    /// When it was made.
    pub issued_at: Option<Timestamp>,
    /// Its `jti`.
    pub token_id: Option<String>,
    /// Its [`PASSWORD_NUMBER`].
    pub password_number: Option<i64>,
}

/// What every token has to say.
struct Named {
    subject: String,
    expires_at: Timestamp,
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
                self.check_times(verified.principal.expires_at, verified.not_before)?;
                self.0.verified.insert(key, verified.clone());
                verified
            }
        };
        self.check_times(verified.principal.expires_at, verified.not_before)?;
        Ok(verified.principal.clone())
    }

    /// Whom a token names that was signed with the shared secret: for those who sign in here, before they have chosen a
    /// tenant too.
    pub async fn identify(&self, token: &str) -> Result<Identity, Refusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Refusal::Malformed);
        }
        let (claims, is_symmetric) = Box::pin(self.claims(token)).await?;
        if !is_symmetric {
            return Err(Refusal::Algorithm);
        }
        let named = self.named(&claims)?;
        self.check_times(named.expires_at, named.not_before)?;
        let paths = &self.0.config.claims.tenant;
        let tenant = paths.iter().flat_map(|path| self.at(&claims, path)).next();
        let tenant = tenant.and_then(text).filter(|name| !name.is_empty());
        let tenant = tenant.map(|name| Tenant::new(&name)).transpose();
        Ok(Identity {
            subject: named.subject,
            tenant: tenant.map_err(|_| Refusal::NoTenant)?,
            issued_at: time(claims.get("iat")),
            token_id: claims.get("jti").and_then(text),
            password_number: claims.get(PASSWORD_NUMBER).and_then(Value::as_i64),
        })
    }

    fn check_times(
        &self,
        expires_at: Timestamp,
        not_before: Option<Timestamp>,
    ) -> Result<(), Refusal> {
        let (now, leeway) = (self.0.clock.now(), self.0.config.leeway);
        if expires_at.plus(leeway) <= now {
            return Err(Refusal::Expired);
        }
        if not_before.is_some_and(|at| at > now.plus(leeway)) {
            return Err(Refusal::NotYet);
        }
        Ok(())
    }

    async fn decode(&self, token: &str) -> Result<Verified, Refusal> {
        let (claims, _) = self.claims(token).await?;
        self.read(&claims)
    }

    /// What a token says whose signature holds, and whether it was signed with the shared secret.
    async fn claims(&self, token: &str) -> Result<(Value, bool), Refusal> {
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
        Ok((claims, is_symmetric))
    }

    /// Checks what holds for every token, and reads whom it names.
    fn named(&self, claims: &Value) -> Result<Named, Refusal> {
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
        Ok(Named {
            subject,
            expires_at,
            not_before,
        })
    }

    /// Reads what a token says, by the configured paths.
    fn read(&self, claims: &Value) -> Result<Verified, Refusal> {
        let config = &self.0.config;
        let Named {
            subject,
            expires_at,
            not_before,
        } = self.named(claims)?;
        let issuer = claims.get("iss").and_then(Value::as_str);
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

#[cfg(test)]
mod tests;
