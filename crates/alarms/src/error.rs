//! Why the module did not do as asked, by what the caller can do about it.

use tidings_core::db::DbError;
use tidings_core::log::WriteError;

/// One step on the way to a wrong member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A member's name.
    Member(String),
    /// A place in a list, counted from 0.
    Index(usize),
}

/// What is wrong with one member of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Where, from the body's top.
    pub at: Vec<Step>,
    /// What is allowed, in words.
    pub message: String,
    /// A short code, as `missing`, `string_type`, `enum`, `datetime`.
    pub kind: &'static str,
}

impl Invalid {
    /// About one member at the body's top.
    pub fn member(name: &str, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            at: vec![Step::Member(name.into())],
            message: message.into(),
            kind,
        }
    }

    /// The same, inside of the item at `index`.
    #[must_use]
    pub fn inside(mut self, index: usize) -> Self {
        self.at.insert(0, Step::Index(index));
        self
    }
}

/// Why the module did not do as asked. Nothing is stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The input is wrong: the members that are, at least one.
    #[error("the input is wrong")]
    Invalid(Vec<Invalid>),
    /// Nothing of this tenant has this id.
    #[error("no {what} {id}")]
    NotFound {
        /// The noun.
        what: &'static str,
        /// What was asked for.
        id: String,
    },
    /// The state does not allow this move.
    #[error("{from} cannot become {to}")]
    Illegal {
        /// The state now.
        from: String,
        /// What was asked for.
        to: String,
        /// What is allowed.
        legal: Vec<&'static str>,
    },
    /// Too many writes wait: try again in a moment.
    #[error("too many writes wait; try again")]
    Full,
    /// The database cannot do this now.
    #[error("the state cannot be read or stored now")]
    Unavailable(#[source] DbError),
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(vec![invalid])
    }
}

impl From<DbError> for Error {
    fn from(e: DbError) -> Self {
        Self::Unavailable(e)
    }
}

impl From<WriteError<Self>> for Error {
    fn from(e: WriteError<Self>) -> Self {
        match e {
            WriteError::Full => Self::Full,
            WriteError::Unavailable(e) => Self::Unavailable(e),
            WriteError::Refused(e) => e,
        }
    }
}
