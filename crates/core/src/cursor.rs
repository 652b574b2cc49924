//! Where a reader stands in a tenant's log: `<epoch>-<seq>`, opaque to clients.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// A place in a tenant's log. `seq` grows by commit order; missing numbers mean nothing.
pub type Seq = u64;

/// The identity of one tenant's log: 16 random letters and digits (95 bits), changed when the log is not the same log any
/// more. Short, because every frame of every stream carries it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Epoch(Arc<str>);

/// The system gave no random bytes.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct NoRandomness;

impl Epoch {
    /// A new epoch that nobody can guess.
    pub fn random() -> Result<Self, NoRandomness> {
        const LETTERS: &[u8; 62] =
            b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut text = String::with_capacity(16);
        while text.len() < 16 {
            let mut bytes = [0u8; 32];
            SystemRandom::new()
                .fill(&mut bytes)
                .map_err(|_| NoRandomness)?;
            // Six bits each; the two values past the letters are thrown away, so that all are equally likely.
            let letters = bytes
                .iter()
                .filter_map(|b| LETTERS.get(usize::from(b & 63)));
            text.extend(letters.take(16 - text.len()).map(|b| char::from(*b)));
        }
        Ok(Self(text.into()))
    }

    /// An epoch as the store holds it.
    #[must_use]
    pub fn stored(text: &str) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The cursor of a place in this log.
    #[must_use]
    pub fn at(&self, seq: Seq) -> Cursor {
        Cursor {
            epoch: self.clone(),
            seq,
        }
    }
}

/// A reader's place, sent as SSE's `id:` and taken back as `Last-Event-ID`. The reader has everything up to `seq`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Cursor {
    /// Which log.
    pub epoch: Epoch,
    /// The last place that the reader has.
    pub seq: Seq,
}

/// The longest cursor that is read, in bytes.
pub const MAX_CURSOR_BYTES: usize = 64;

/// The bytes are no cursor of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this server")]
pub struct InvalidCursor;

impl Cursor {
    /// Reads a cursor; `Last-Event-ID` comes as bytes that need not be UTF-8.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidCursor> {
        let text = std::str::from_utf8(bytes).map_err(|_| InvalidCursor)?;
        if text.len() > MAX_CURSOR_BYTES {
            return Err(InvalidCursor);
        }
        let (epoch, seq) = text.split_once('-').ok_or(InvalidCursor)?;
        let is_plain = !seq.is_empty()
            && seq.bytes().all(|b| b.is_ascii_digit())
            && (seq == "0" || !seq.starts_with('0'));
        if epoch.is_empty() || !epoch.bytes().all(|b| b.is_ascii_alphanumeric()) || !is_plain {
            return Err(InvalidCursor);
        }
        let seq = seq.parse().map_err(|_| InvalidCursor)?;
        Ok(Self {
            epoch: Epoch::stored(epoch),
            seq,
        })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch.0, self.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_nothing_else_does() {
        let cursor = Epoch::random().unwrap().at(42);
        assert_eq!(Cursor::parse(cursor.to_string().as_bytes()), Ok(cursor));
        for bytes in [
            &b""[..],
            b"-",
            b"a-",
            b"-1",
            b"a-01",
            b"a-+1",
            b"a-1x",
            b"a b-1",
            b"\xff-1",
            b"a-18446744073709551616",
        ] {
            assert_eq!(Cursor::parse(bytes), Err(InvalidCursor), "{bytes:?}");
        }
        assert_eq!(Cursor::parse(&[b'a'; 65]), Err(InvalidCursor));
    }
}
