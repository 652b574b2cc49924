//! An alarm: one (resource, alarm type, specific problem), as in RFC 8632, on three axes that move apart from each other.
//!
//! *Condition* is what sources say, *severity* how bad they perceive it, *operator state* what people made of it. The order
//! of a source's words is that of their times, not of their arrival: a late one is kept, and changes nothing newer.
//!
//! - `rules`: what an occurrence or an operator makes of an alarm; pure
//! - `event`: what the log tells of it
//! - `store`: rows; `list`: filters and pages
//! - `write`: many occurrences in one transaction; `intake`: who shares one
//! - `operate`: what people do; `due`: what time does

pub mod due;
pub mod event;
mod intake;
pub mod list;
mod operate;
pub mod rules;
pub mod store;
#[cfg(test)]
mod tests;
mod write;

use aws_lc_rs::digest;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use tidings_core::clock::Timestamp;
use tidings_core::tenant::Tenant;
use uuid::Uuid;

use crate::{Perceived, Severity};

pub(crate) use intake::Intake;
pub use intake::{Accepted, Request};
pub use operate::Operation;
pub use rules::FLAP_WINDOW;

/// What sources say of an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// The fault is there.
    Raised,
    /// The fault is gone.
    Cleared,
}

impl Condition {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Cleared => "cleared",
        }
    }
}

/// What people made of an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum OperatorState {
    /// Nobody has touched it.
    #[default]
    None,
    /// Somebody has seen it.
    Acknowledged,
    /// Put aside for a time.
    Shelved,
}

impl OperatorState {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Acknowledged => "acknowledged",
            Self::Shelved => "shelved",
        }
    }
}

macro_rules! words {
    ($type:ident, $text:literal, $($of:ident),*) => {
        impl std::str::FromStr for $type {
            type Err = &'static str;

            /// Reads the word in any case.
            fn from_str(word: &str) -> Result<Self, &'static str> {
                [$(Self::$of),*]
                    .into_iter()
                    .find(|it| it.as_str().eq_ignore_ascii_case(word))
                    .ok_or($text)
            }
        }
    };
}
words!(
    Condition,
    "a condition is raised or cleared",
    Raised,
    Cleared
);
words!(
    OperatorState,
    "an operator state is none, acknowledged or shelved",
    None,
    Acknowledged,
    Shelved
);

/// What makes two occurrences tell of the same alarm.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The resource.
    pub entity_id: String,
    /// The kind of fault.
    pub alarm_type: String,
    /// Which fault of that kind, where the source tells several apart.
    pub specific_problem: Option<String>,
}

impl Identity {
    /// The alarm's id in a tenant: the same for ever, and not to be guessed from another tenant's.
    #[must_use]
    pub fn alarm_id(&self, tenant: &Tenant) -> String {
        let hash = self.digest(tenant.as_str(), &[]);
        let bytes = hash.get(..16).and_then(|b| b.try_into().ok());
        uuid::Builder::from_custom_bytes(bytes.unwrap_or_default())
            .into_uuid()
            .hyphenated()
            .encode_lower(&mut Uuid::encode_buffer())
            .to_owned()
    }

    fn digest(&self, first: &str, more: &[u8]) -> Vec<u8> {
        let mut hash = digest::Context::new(&digest::SHA256);
        let problem = self.specific_problem.as_deref();
        for part in [
            Some(first),
            Some(&self.entity_id),
            Some(&self.alarm_type),
            problem,
        ] {
            hash.update(&[u8::from(part.is_some())]);
            let part = part.unwrap_or_default();
            hash.update(&part.len().to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.update(more);
        hash.finish().as_ref().to_vec()
    }
}

/// One word of a source about an alarm: it is there, or it is gone, at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Occurrence {
    /// Of which alarm.
    pub identity: Identity,
    /// Raised, how bad, or cleared.
    pub perceived: Perceived,
    /// When.
    pub at: Timestamp,
    /// Who says so.
    pub source_system: String,
    /// The resource's id elsewhere.
    pub entity_external_id: Option<String>,
    /// Why, as far as the source can tell (X.733).
    pub probable_cause: Option<String>,
    /// All else that the source said, as JSON text of an object.
    pub attributes: String,
    /// Once this has passed unrefreshed, the alarm is cleared.
    pub ends_at: Option<Timestamp>,
    /// A digest of the publisher's own idempotency key (`CloudEvents` source and id).
    pub source_key: Option<String>,
    /// Whether the source repeats what is so, rather than telling each change once.
    pub is_repeated: bool,
}

impl Occurrence {
    /// Whether it raises.
    #[must_use]
    pub fn is_raise(&self) -> bool {
        matches!(self.perceived, Perceived::Raised(_))
    }

    /// What the same occurrence has the same of: its time, then a digest of the rest, so that keys grow with time.
    #[must_use]
    pub fn key(&self) -> String {
        let hash = self.identity.digest("", &[u8::from(self.is_raise())]);
        let hash: String = hash.iter().take(12).map(|b| format!("{b:02x}")).collect();
        format!("{}{hash}", time_key(self.at))
    }
}

/// A time as text that sorts as the time does.
pub(crate) fn time_key(at: Timestamp) -> String {
    format!("{:016x}", at.as_micros().cast_unsigned() ^ (1 << 63))
}

/// An alarm as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Alarm {
    /// Its id.
    pub id: String,
    /// What it is.
    pub identity: Identity,
    /// The resource's id elsewhere.
    pub entity_external_id: Option<String>,
    /// Why, as far as the source can tell.
    pub probable_cause: Option<String>,
    /// How bad it is, or was when it cleared.
    pub severity: Severity,
    /// Whether it is there.
    pub condition: Condition,
    /// What people made of it.
    pub operator_state: OperatorState,
    /// Who acknowledged it.
    pub acknowledged_by: Option<String>,
    /// When.
    pub acknowledged_at: Option<Timestamp>,
    /// Who put it aside.
    pub shelved_by: Option<String>,
    /// Why.
    pub shelve_reason: Option<String>,
    /// Until when.
    pub shelve_expires_at: Option<Timestamp>,
    /// The latest raise; none where only a clear is known.
    pub raised_at: Option<Timestamp>,
    /// When it cleared, while it is cleared.
    pub cleared_at: Option<Timestamp>,
    /// The earliest raise that is known.
    pub first_raised_at: Option<Timestamp>,
    /// When its row last changed.
    pub updated_at: Timestamp,
    /// How many raises were accepted.
    pub raise_count: i64,
    /// How often it was raised after it had cleared.
    pub flap_count: i64,
    /// When that last happened, newest last; at most [`rules::FLAPS`].
    pub flaps: Vec<Timestamp>,
    /// The cluster of its latest correlated occurrence.
    pub cluster_id: Option<String>,
    /// Who told of it last.
    pub source_system: String,
    /// All else that the source said, as JSON text of an object.
    pub attributes: String,
    /// Once this has passed unrefreshed, it is cleared.
    pub ends_at: Option<Timestamp>,
    /// Cleared by a source that repeats what is so, or by its silence: the same raise once more means that it is there.
    pub may_return: bool,
}

impl Alarm {
    /// What lists are sorted by: the latest raise, else the clear.
    #[must_use]
    pub fn event_at(&self) -> Timestamp {
        self.raised_at
            .or(self.cleared_at)
            .unwrap_or(self.updated_at)
    }

    /// What a search looks in: lower case.
    #[must_use]
    pub(crate) fn words(&self) -> String {
        let words = [
            Some(&self.identity.entity_id),
            self.entity_external_id.as_ref(),
            Some(&self.identity.alarm_type),
            self.identity.specific_problem.as_ref(),
            self.probable_cause.as_ref(),
            Some(&self.source_system),
        ];
        let words: Vec<_> = words
            .into_iter()
            .flatten()
            .map(|w| w.to_lowercase())
            .collect();
        words.join("\n")
    }

    /// As the API shows it.
    #[must_use]
    pub fn shown<'a>(&'a self, tenant: &'a Tenant, now: Timestamp) -> Shown<'a> {
        Shown {
            id: &self.id,
            tenant_id: tenant.as_str(),
            entity_id: &self.identity.entity_id,
            entity_external_id: self.entity_external_id.as_deref(),
            alarm_type: &self.identity.alarm_type,
            specific_problem: self.identity.specific_problem.as_deref(),
            probable_cause: self.probable_cause.as_deref(),
            severity: self.severity,
            condition: self.condition,
            operator_state: self.operator_state,
            acknowledged_by: self.acknowledged_by.as_deref(),
            acknowledged_at: self.acknowledged_at.map(Moment),
            shelved_by: self.shelved_by.as_deref(),
            shelve_reason: self.shelve_reason.as_deref(),
            shelve_expires_at: self.shelve_expires_at.map(Moment),
            raised_at: self.raised_at.map(Moment),
            cleared_at: self.cleared_at.map(Moment),
            first_raised_at: self.first_raised_at.map(Moment),
            updated_at: Moment(self.updated_at),
            raise_count: self.raise_count,
            flap_count: self.flap_count,
            flapping: rules::is_flapping(self, now),
            cluster_id: self.cluster_id.as_deref(),
            source_system: &self.source_system,
            attributes: Object(&self.attributes),
        }
    }
}

/// A time, as JSON shows it.
#[derive(Debug, Clone, Copy)]
pub struct Moment(pub Timestamp);

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

/// JSON text that stands for itself.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a>(pub &'a str);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(to)
    }
}

/// An alarm as the API shows it.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "named as in Alarm")]
pub struct Shown<'a> {
    pub id: &'a str,
    pub tenant_id: &'a str,
    pub entity_id: &'a str,
    pub entity_external_id: Option<&'a str>,
    pub alarm_type: &'a str,
    pub specific_problem: Option<&'a str>,
    pub probable_cause: Option<&'a str>,
    pub severity: Severity,
    pub condition: Condition,
    pub operator_state: OperatorState,
    pub acknowledged_by: Option<&'a str>,
    pub acknowledged_at: Option<Moment>,
    pub shelved_by: Option<&'a str>,
    pub shelve_reason: Option<&'a str>,
    pub shelve_expires_at: Option<Moment>,
    pub raised_at: Option<Moment>,
    pub cleared_at: Option<Moment>,
    pub first_raised_at: Option<Moment>,
    pub updated_at: Moment,
    pub raise_count: i64,
    pub flap_count: i64,
    pub flapping: bool,
    pub cluster_id: Option<&'a str>,
    pub source_system: &'a str,
    pub attributes: Object<'a>,
}
