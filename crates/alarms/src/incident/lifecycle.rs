//! Which moves are legal. Pure.

use std::fmt;
use std::str::FromStr;

use tidings_core::clock::Timestamp;

use super::{Incident, Mark};
use crate::Error;

/// How far the work on an incident is. A person moves it one step at a time; none goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Nobody has taken it on.
    Open,
    /// Somebody has.
    Acknowledged,
    /// Somebody works on it.
    InProgress,
    /// The fault is gone. It never absorbs new alarms.
    Resolved,
    /// Put away.
    Closed,
}

impl Status {
    /// In their order.
    pub const ALL: [Self; 5] = [
        Self::Open,
        Self::Acknowledged,
        Self::InProgress,
        Self::Resolved,
        Self::Closed,
    ];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Acknowledged => "acknowledged",
            Self::InProgress => "in_progress",
            Self::Resolved => "resolved",
            Self::Closed => "closed",
        }
    }

    /// The step after it.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self {
            Self::Open => Some(Self::Acknowledged),
            Self::Acknowledged => Some(Self::InProgress),
            Self::InProgress => Some(Self::Resolved),
            Self::Resolved => Some(Self::Closed),
            Self::Closed => None,
        }
    }

    /// Whether the fault is gone.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Resolved | Self::Closed)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word is no status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a status is open, acknowledged, in_progress, resolved or closed")]
pub struct UnknownStatus;

impl FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(word: &str) -> Result<Self, UnknownStatus> {
        let found = Self::ALL.into_iter().find(|s| s.as_str() == word);
        found.ok_or(UnknownStatus)
    }
}

/// What a person must have approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// The situation report. First.
    Sitrep,
    /// The action plan. After the report.
    Action,
}

impl Gate {
    /// The path that passes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sitrep => "approve-sitrep",
            Self::Action => "approve-action",
        }
    }

    /// What is approved, in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Sitrep => "the situation report",
            Self::Action => "the action plan",
        }
    }
}

impl Incident {
    /// Where a person may move it now. With approvals required, not to resolved before both gates are passed.
    #[must_use]
    pub fn legal(&self, needs_approval: bool) -> Vec<Status> {
        let next = self.status.next();
        let is_held =
            needs_approval && next == Some(Status::Resolved) && self.open_gate().is_some();
        next.into_iter().filter(|_| !is_held).collect()
    }

    /// The gate that is to be passed next.
    #[must_use]
    pub fn open_gate(&self) -> Option<Gate> {
        if self.status.is_over() {
            None
        } else if self.sitrep_approved.is_none() {
            Some(Gate::Sitrep)
        } else if self.action_approved.is_none() {
            Some(Gate::Action)
        } else {
            None
        }
    }

    /// Moves it one step, where that is legal.
    pub fn step(&mut self, to: Status, needs_approval: bool, mark: Mark) -> Result<(), Error> {
        let legal = self.legal(needs_approval);
        if !legal.contains(&to) {
            let held = self.open_gate().filter(|_| self.status.next() == Some(to));
            return Err(Error::Illegal {
                from: self.status.to_string(),
                to: match held {
                    Some(gate) => format!("{to} before {} is approved", gate.words()),
                    None => to.to_string(),
                },
                legal: legal.into_iter().map(Status::as_str).collect(),
            });
        }
        self.enter(to, mark);
        Ok(())
    }

    /// Passes a gate, where it is the one to be passed next.
    pub fn approve(&mut self, gate: Gate, mark: Mark) -> Result<(), Error> {
        let open = self.open_gate();
        if open != Some(gate) {
            return Err(Error::Illegal {
                from: self.status.to_string(),
                to: format!(
                    "one whose {} is approved now",
                    gate.words().trim_start_matches("the ")
                ),
                legal: open.into_iter().map(Gate::as_str).collect(),
            });
        }
        self.touch(mark.at);
        match gate {
            Gate::Sitrep => self.sitrep_approved = Some(mark),
            Gate::Action => self.action_approved = Some(mark),
        }
        Ok(())
    }

    /// Sets a status, and who brought it about. Rules of the system's own, which may skip steps, go by this.
    pub(super) fn enter(&mut self, to: Status, mark: Mark) {
        self.status = to;
        self.touch(mark.at);
        match to {
            Status::Acknowledged => self.acknowledged = Some(mark),
            Status::Resolved => self.resolved = Some(mark),
            Status::Closed => self.closed = Some(mark),
            Status::Open | Status::InProgress => {}
        }
    }

    /// Notes that something changed.
    pub(super) fn touch(&mut self, at: Timestamp) {
        self.updated_at = self.updated_at.max(at);
    }
}
