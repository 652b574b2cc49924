//! Who is calling, and why somebody is turned away.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock, OnceLock};

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::tenant::Tenant;

/// Who is calling: a user, a service or a device of one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The isolation boundary.
    pub tenant: Tenant,
    /// The user, service or device.
    pub subject: Arc<str>,
    /// What they are.
    pub roles: BTreeSet<String>,
    /// What their token is good for.
    pub scopes: BTreeSet<String>,
    /// Patients that their token names.
    pub patient_ids: BTreeSet<String>,
    /// When their token ends.
    pub expires_at: Timestamp,
    /// When it was made.
    pub issued_at: Option<Timestamp>,
    /// Its `jti`.
    pub token_id: Option<String>,
    /// A digest of roles, scopes and patients, once it has been asked for.
    pub digest: RightsDigest,
}

static DIGEST_KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(Default::default);

/// A digest of what a principal has, so that nobody needs to hash all of it at each question.
///
/// It follows from the other members, so all of them count as equal.
#[derive(Debug, Clone, Default)]
pub struct RightsDigest(OnceLock<[u64; 2]>);

impl PartialEq for RightsDigest {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for RightsDigest {}

impl Principal {
    /// A digest of roles, scopes and patients, by keys that nobody outside of this process knows.
    #[must_use]
    pub fn rights(&self) -> [u64; 2] {
        let rights = (&self.roles, &self.scopes, &self.patient_ids);
        *self
            .digest
            .0
            .get_or_init(|| [0, 1].map(|n: usize| DIGEST_KEYS[n].hash_one(rights)))
    }

    /// Whether they have a role.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.contains(role)
    }

    /// Whether their token is good for something.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.contains(scope)
    }
}

/// A principal as a sealed cookie holds it.
#[derive(Serialize, Deserialize)]
pub(super) struct Stored {
    tenant: String,
    subject: String,
    roles: BTreeSet<String>,
    scopes: BTreeSet<String>,
    patient_ids: BTreeSet<String>,
    expires_at: i64,
    issued_at: Option<i64>,
    token_id: Option<String>,
}

impl From<&Principal> for Stored {
    fn from(p: &Principal) -> Self {
        Self {
            tenant: p.tenant.to_string(),
            subject: p.subject.to_string(),
            roles: p.roles.clone(),
            scopes: p.scopes.clone(),
            patient_ids: p.patient_ids.clone(),
            expires_at: p.expires_at.as_micros(),
            issued_at: p.issued_at.map(Timestamp::as_micros),
            token_id: p.token_id.clone(),
        }
    }
}

impl Stored {
    pub(super) fn principal(self) -> Option<Principal> {
        Some(Principal {
            tenant: Tenant::new(&self.tenant).ok()?,
            subject: self.subject.into(),
            roles: self.roles,
            scopes: self.scopes,
            patient_ids: self.patient_ids,
            expires_at: Timestamp::from_micros(self.expires_at),
            issued_at: self.issued_at.map(Timestamp::from_micros),
            token_id: self.token_id,
            digest: RightsDigest::default(),
        })
    }
}

macro_rules! refusals {
    ($($name:ident, $reason:literal, $text:literal;)*) => {
        /// Why a credential is refused. The text is for a person and holds nothing of the credential.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
        pub enum Refusal {
            $(#[doc = $text] #[error($text)] $name,)*
        }

        impl Refusal {
            /// A word for metrics.
            #[must_use]
            pub fn reason(self) -> &'static str {
                match self { $(Self::$name => $reason,)* }
            }
        }
    };
}

refusals! {
    Missing, "missing", "Missing authentication: no credential came with the request";
    Malformed, "malformed", "the credential cannot be read";
    Algorithm, "algorithm", "the token's algorithm is not accepted here";
    Header, "header", "the token's header brings a key or a critical extension of its own";
    UnknownKey, "unknown_key", "the token's key is not known";
    Signature, "signature", "the token's signature does not hold";
    Expired, "expired", "the token has expired";
    NotYet, "not_yet", "the token is not valid yet";
    Issuer, "issuer", "the token is of another issuer";
    Audience, "audience", "the token is for another audience";
    TokenType, "token_type", "the token is no access token";
    Subject, "subject", "the token names no subject";
    Expiry, "expiry", "the token names no time at which it ends";
    NoTenant, "no_tenant", "the token names no tenant";
    Revoked, "revoked", "the token has been revoked";
    KeysUnavailable, "keys_unavailable", "the issuer's keys cannot be had at the moment";
    Ticket, "ticket", "the ticket is unknown, used, or past its time";
    Origin, "origin", "the request comes from a page that may not make it";
}
