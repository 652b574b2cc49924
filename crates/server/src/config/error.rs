//! What is wrong with a configuration: everything at once, each with its key, value, place and what is allowed.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nothing set it.
    Default,
    /// Nothing set it, and the setting of this key stands in.
    Of(String),
    /// A command sets it, as `serve --demo` does.
    Preset(&'static str),
    /// A line of the file, from 1.
    File(PathBuf, usize),
    /// A variable of the environment.
    Environment(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Of(key) => f.write_str(key),
            Self::Preset(command) => f.write_str(command),
            Self::File(path, line) => write!(f, "file {}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The file is no TOML.
    #[error("file {}:{line}: not valid TOML: {reason}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        reason: String,
    },
    /// No setting has this key.
    #[error("unknown setting {key} ({place}){hint}")]
    Unknown {
        /// The key.
        key: String,
        /// Where it stands.
        place: Source,
        /// The nearest key, in words; empty if none is near.
        hint: String,
    },
    /// A value that its setting does not take.
    #[error("setting {key} = {value} ({place}): {reason}")]
    Value {
        /// The key.
        key: String,
        /// The value; masked where it is secret.
        value: String,
        /// Where it stands.
        place: Source,
        /// What is wrong, or what the setting takes.
        reason: String,
    },
    /// A setting of a feature that is not built.
    #[error("setting {key} ({place}): {reason}")]
    Refused {
        /// The key.
        key: String,
        /// Where it stands.
        place: Source,
        /// Why.
        reason: String,
    },
    /// Values that do not go together.
    #[error("{0}")]
    Together(String),
}

/// Everything that is wrong, one thing a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigErrors(pub(crate) Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
