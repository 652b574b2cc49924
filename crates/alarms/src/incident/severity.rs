//! How bad an incident is.

use std::fmt;
use std::str::FromStr;

/// How bad an incident is, from mild to severe: the words of X.733, and two that existing clients use beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Not known. No person opens one of these.
    Indeterminate,
    /// A potential fault.
    Warning,
    /// Service is not affected.
    Minor,
    /// As minor.
    Medium,
    /// Service is affected.
    Major,
    /// As major.
    High,
    /// Service is out, or an emergency service is concerned.
    Critical,
}

/// What a severity means for those who work on it (ITIL).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight {
    /// On those who are served.
    pub impact: &'static str,
    /// How soon.
    pub urgency: &'static str,
    /// `P1` to `P5`.
    pub priority: &'static str,
}

impl Severity {
    /// Mildest first.
    pub const ALL: [Self; 7] = [
        Self::Indeterminate,
        Self::Warning,
        Self::Minor,
        Self::Medium,
        Self::Major,
        Self::High,
        Self::Critical,
    ];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Indeterminate => "indeterminate",
            Self::Warning => "warning",
            Self::Minor => "minor",
            Self::Medium => "medium",
            Self::Major => "major",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// Impact, urgency and priority.
    #[must_use]
    pub const fn weight(self) -> Weight {
        let (impact, urgency, priority) = match self {
            Self::Critical => ("high", "high", "P1"),
            Self::High | Self::Major => ("high", "medium", "P2"),
            Self::Medium => ("medium", "medium", "P3"),
            Self::Minor => ("medium", "low", "P3"),
            Self::Warning => ("low", "medium", "P4"),
            Self::Indeterminate => ("low", "low", "P5"),
        };
        Weight {
            impact,
            urgency,
            priority,
        }
    }

    /// Whether it is worse than another by its priority: major does not make high worse, nor minor medium.
    #[must_use]
    pub fn outweighs(self, other: Self) -> bool {
        self.weight().priority < other.weight().priority
    }
}

impl From<crate::Severity> for Severity {
    fn from(severity: crate::Severity) -> Self {
        match severity {
            crate::Severity::Indeterminate => Self::Indeterminate,
            crate::Severity::Warning => Self::Warning,
            crate::Severity::Minor => Self::Minor,
            crate::Severity::Major => Self::Major,
            crate::Severity::Critical => Self::Critical,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word is not one for an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a severity is critical, high, major, medium, minor or warning")]
pub struct UnknownSeverity;

impl FromStr for Severity {
    type Err = UnknownSeverity;

    /// Reads a word in any case; `indeterminate` is none.
    fn from_str(word: &str) -> Result<Self, UnknownSeverity> {
        let known = &Self::ALL[1..];
        let found = known.iter().find(|s| s.as_str().eq_ignore_ascii_case(word));
        found.copied().ok_or(UnknownSeverity)
    }
}
