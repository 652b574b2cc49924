//! An issuer's keys (RFC 7517): from a file, an address, or by OIDC discovery; kept, refreshed, and never made weaker.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use tokio::sync::{Mutex, MutexGuard};

use super::config::{AuthConfig, AuthConfigError};
use super::principal::Refusal;

/// The largest document that is read.
const MAX_BYTES: usize = 1024 * 1024;
/// The shortest time between two fetches while no keys are known at all: nobody can come in.
const FIRST_FLOOR: Duration = Duration::from_secs(2);
/// How long a fetch may take.
const FETCH_TIME: Duration = Duration::from_secs(5);

enum Source {
    File(PathBuf),
    Url(String),
    Discovery(String),
}

/// Why keys could not be read.
#[derive(Debug, thiserror::Error)]
enum KeysError {
    #[error("{0}")]
    Fetch(reqwest::Error),
    #[error("{0}")]
    File(#[from] std::io::Error),
    #[error("not a document of the expected form: {0}")]
    Form(#[from] serde_json::Error),
    #[error("the address answers {0}")]
    Status(u16),
    #[error("the document is over {MAX_BYTES} bytes")]
    Size,
    #[error("the discovery document is of another issuer")]
    Issuer,
}

impl From<reqwest::Error> for KeysError {
    /// Without the address: it may hold a password.
    fn from(e: reqwest::Error) -> Self {
        Self::Fetch(e.without_url())
    }
}

#[derive(Default)]
struct Known {
    keys: Vec<Jwk>,
    /// When they were read; none before the first time.
    read: Option<Instant>,
    modified: Option<SystemTime>,
}

/// The last attempt to fetch.
#[derive(Default)]
struct Attempt {
    at: Option<Instant>,
}

/// An issuer's keys.
pub(super) struct Keys {
    source: Source,
    http: reqwest::Client,
    known: ArcSwap<Known>,
    /// One fetch at a time; those who come meanwhile find its result.
    attempt: Mutex<Attempt>,
    refresh_after: Duration,
    floor: Duration,
}

#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

impl Keys {
    /// The keys that the settings name, where they name any. An issuer beside a shared secret is only compared.
    pub(super) fn of(config: &AuthConfig) -> Result<Option<Self>, AuthConfigError> {
        let source = match (&config.jwks_file, &config.jwks_url, &config.issuer) {
            (Some(file), _, _) => Source::File(file.clone()),
            (None, Some(url), _) => Source::Url(url.clone()),
            (None, None, Some(issuer)) if config.jwt_secret.is_none() => {
                Source::Discovery(issuer.clone())
            }
            _ => return Ok(None),
        };
        let http = reqwest::Client::builder()
            .timeout(FETCH_TIME)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| AuthConfigError {
                key: "auth.jwks_url",
                why: e.to_string(),
            })?;
        Ok(Some(Self {
            source,
            http,
            known: ArcSwap::default(),
            attempt: Mutex::default(),
            refresh_after: config.jwks_refresh,
            floor: config.jwks_floor,
        }))
    }

    /// The key of a token, fetched anew where it is not known, but not more often than the floor allows.
    pub(super) async fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<DecodingKey, Refusal> {
        let known = self.known.load();
        let is_stale = known
            .read
            .is_none_or(|at| at.elapsed() >= self.refresh_after);
        if !matches!(self.source, Source::File(_))
            && let Ok(key) = pick(&known.keys, kid, algorithm)
        {
            // Whoever finds the keys old fetches them; others are not kept waiting for an issuer that may be slow.
            if is_stale && let Ok(attempt) = self.attempt.try_lock() {
                self.fetch_keys(attempt).await;
                return pick(&self.known.load().keys, kid, algorithm);
            }
            return Ok(key);
        }
        self.refresh().await;
        let known = self.known.load();
        if known.read.is_none() {
            return Err(Refusal::KeysUnavailable);
        }
        pick(&known.keys, kid, algorithm)
    }

    /// Reads the keys again, unless that has just been tried. What fails leaves the old keys in place.
    pub(super) async fn refresh(&self) {
        self.fetch_keys(self.attempt.lock().await).await;
    }

    async fn fetch_keys(&self, mut attempt: MutexGuard<'_, Attempt>) {
        let is_file = matches!(self.source, Source::File(_));
        let floor = match self.known.load().read {
            Some(_) => self.floor,
            None => self.floor.min(FIRST_FLOOR),
        };
        if !is_file && attempt.at.is_some_and(|at| at.elapsed() < floor) {
            return;
        }
        attempt.at = Some(Instant::now());
        match self.read().await {
            Ok(Some(known)) => {
                self.known.store(Arc::new(known));
                metrics::counter!("tidings_jwks_refreshes_total", "result" => "ok").increment(1);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "the issuer's keys could not be read; those that are known stay in use");
                metrics::counter!("tidings_jwks_refreshes_total", "result" => "error").increment(1);
            }
        }
    }

    /// The keys, or none where the file has not changed.
    async fn read(&self) -> Result<Option<Known>, KeysError> {
        let (document, modified) = match &self.source {
            Source::File(file) => {
                let modified = tokio::fs::metadata(file).await?.modified().ok();
                let known = self.known.load();
                if known.read.is_some() && modified.is_some() && modified == known.modified {
                    return Ok(None);
                }
                (tokio::fs::read(file).await?, modified)
            }
            Source::Url(url) => (self.fetch(url).await?, None),
            Source::Discovery(issuer) => {
                let address = format!(
                    "{}/.well-known/openid-configuration",
                    issuer.trim_end_matches('/')
                );
                let found: Discovered = serde_json::from_slice(&self.fetch(&address).await?)?;
                // OpenID Connect Discovery 1.0, section 4.3: the issuer must be the one that was asked.
                if found.issuer != *issuer {
                    return Err(KeysError::Issuer);
                }
                (self.fetch(&found.jwks_uri).await?, None)
            }
        };
        // One key of a kind that we do not know must not hide the others.
        #[derive(Deserialize)]
        struct Loose {
            keys: Vec<serde_json::Value>,
        }
        let loose: Loose = serde_json::from_slice(&document)?;
        let set = JwkSet {
            keys: loose
                .keys
                .into_iter()
                .filter_map(|key| serde_json::from_value(key).ok())
                .collect(),
        };
        Ok(Some(Known {
            keys: set.keys,
            read: Some(Instant::now()),
            modified,
        }))
    }

    async fn fetch(&self, url: &str) -> Result<Vec<u8>, KeysError> {
        let mut response = self.http.get(url).send().await?;
        if !response.status().is_success() {
            return Err(KeysError::Status(response.status().as_u16()));
        }
        let mut document = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            document.extend_from_slice(&chunk);
            if document.len() > MAX_BYTES {
                return Err(KeysError::Size);
            }
        }
        Ok(document)
    }
}

/// Whether a key is for an algorithm: a key of one family never verifies another's signature.
fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    let is_family = match (&key.algorithm, algorithm) {
        (
            AlgorithmParameters::RSA(_),
            Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512 | Algorithm::PS256,
        ) => true,
        (AlgorithmParameters::EllipticCurve(ec), Algorithm::ES256) => {
            ec.curve == EllipticCurve::P256
        }
        (AlgorithmParameters::EllipticCurve(ec), Algorithm::ES384) => {
            ec.curve == EllipticCurve::P384
        }
        (AlgorithmParameters::OctetKeyPair(okp), Algorithm::EdDSA) => {
            okp.curve == EllipticCurve::Ed25519
        }
        _ => false,
    };
    let is_for_signatures = key
        .common
        .public_key_use
        .as_ref()
        .is_none_or(|u| *u == PublicKeyUse::Signature);
    let may_verify = key
        .common
        .key_operations
        .as_ref()
        .is_none_or(|all| all.contains(&KeyOperations::Verify));
    let is_pinned = key
        .common
        .key_algorithm
        .is_none_or(|a| a.to_string() == format!("{algorithm:?}"));
    is_family && is_for_signatures && may_verify && is_pinned
}

fn pick(keys: &[Jwk], kid: Option<&str>, algorithm: Algorithm) -> Result<DecodingKey, Refusal> {
    let is_named = |key: &&Jwk| kid.is_none() || key.common.key_id.as_deref() == kid;
    let mut named = keys.iter().filter(is_named).peekable();
    if named.peek().is_none() {
        return Err(Refusal::UnknownKey);
    }
    // One name may stand for keys of several kinds (RFC 7517, section 4.5).
    let mut found = named.filter(|key| fits(key, algorithm));
    let unfit = match kid {
        Some(_) => Refusal::Algorithm,
        None => Refusal::UnknownKey,
    };
    let key = found.next().ok_or(unfit)?;
    // Only one key may be meant.
    if found.next().is_some() {
        return Err(Refusal::UnknownKey);
    }
    DecodingKey::from_jwk(key).map_err(|_| Refusal::UnknownKey)
}
