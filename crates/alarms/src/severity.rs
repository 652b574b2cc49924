//! Perceived severity, as in ITU-T X.733.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How bad a raised alarm is. Ordered from mild to severe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Not known.
    Indeterminate,
    /// A potential fault, before it is felt.
    Warning,
    /// Service is not affected.
    Minor,
    /// Service is affected.
    Major,
    /// Service is out.
    Critical,
}

impl Severity {
    /// Mildest first.
    pub const ALL: [Self; 5] = [
        Self::Indeterminate,
        Self::Warning,
        Self::Minor,
        Self::Major,
        Self::Critical,
    ];

    /// The word for it, in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Indeterminate => "indeterminate",
            Self::Warning => "warning",
            Self::Minor => "minor",
            Self::Major => "major",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a source perceives: a severity, or that the fault is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Perceived {
    /// The fault is there.
    Raised(Severity),
    /// The fault is gone.
    Cleared,
}

/// The word is not one of X.733's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a severity is critical, major, minor, warning, indeterminate or cleared")]
pub struct UnknownSeverity;

impl FromStr for Severity {
    type Err = UnknownSeverity;

    /// Reads a word in any case; `cleared` is none.
    fn from_str(word: &str) -> Result<Self, UnknownSeverity> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str().eq_ignore_ascii_case(word))
            .ok_or(UnknownSeverity)
    }
}

impl FromStr for Perceived {
    type Err = UnknownSeverity;

    /// Reads a word in any case.
    fn from_str(word: &str) -> Result<Self, UnknownSeverity> {
        if word.eq_ignore_ascii_case("cleared") {
            Ok(Self::Cleared)
        } else {
            word.parse().map(Self::Raised)
        }
    }
}
