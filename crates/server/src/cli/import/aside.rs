//! What could not be taken in: kept aside as dead letters, each once however often the import is run.

use std::collections::HashSet;
use std::process::ExitCode;

use tidings_core::log::dead_letter;

use super::super::warn;

/// Where dead letters of an import say that they come from.
pub(super) const SOURCE: &str = "import";
/// The longest reason of a dead letter, in bytes.
const MAX_REASON_BYTES: usize = 1_024;
/// Lines that are named one by one where not even a dead letter can be made of them.
const NAMED: u64 = 10;

/// What became of the lines that could not be taken in.
#[derive(Debug, Default)]
pub(super) struct Count {
    aside: u64,
    left: u64,
}

impl Count {
    /// A line is a dead letter now, or was one before.
    pub(super) fn set_aside(&mut self) {
        self.aside += 1;
    }

    /// Nothing could be made of a line: it is in its file and nowhere else.
    pub(super) fn leave(&mut self, number: u64, why: &str) {
        self.left += 1;
        if self.left <= NAMED {
            warn(&format!("line {number} is left out: {why}"));
        }
    }

    /// Says how many, and what the exit code is.
    pub(super) fn tell(&self) -> ExitCode {
        let Self { aside, left } = self;
        if *aside > 0 {
            warn(&format!(
                "{aside} lines could not be taken in: `tidings dead-letter list` shows them"
            ));
        }
        if *left > 0 {
            warn(&format!("{left} lines are left out"));
        }
        if aside + left == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// The dead letters that stand already.
#[derive(Debug, Default)]
pub(super) struct Known(HashSet<String>);

impl Known {
    /// Adds what a list of dead letters holds.
    pub(super) fn add(&mut self, source: &str, content: &str) {
        if source == SOURCE {
            self.0.insert(content.to_owned());
        }
    }

    /// Whether a content is new; it is known from now on.
    pub(super) fn is_new(&mut self, content: &str) -> bool {
        self.0.insert(dead_letter::kept(content))
    }
}

/// A reason, no longer than a dead letter takes.
pub(super) fn reason(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_REASON_BYTES)]
}
