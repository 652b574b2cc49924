//! Topics (where an event stands) and patterns (what a subscription asks for). Case counts.

use std::fmt;
use std::sync::Arc;

/// The longest topic or pattern, in bytes.
pub const MAX_TOPIC_BYTES: usize = 256;
/// The most segments of a topic or pattern.
pub const MAX_TOPIC_SEGMENTS: usize = 16;
/// The longest segment, in bytes.
pub const MAX_SEGMENT_BYTES: usize = 64;
/// The most topics and patterns on one stream.
pub const MAX_PATTERNS: usize = 64;

/// A `/`-separated path inside a tenant.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

/// A topic in which `*` stands for exactly one segment and a last `**` for one or more.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Arc<str>);

/// Why a text is not a topic or pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopic {
    /// No text, or an empty segment: a leading, trailing or double `/`.
    #[error("a topic has no empty segment: no leading, trailing or double '/'")]
    Empty,
    /// Longer than [`MAX_TOPIC_BYTES`].
    #[error("a topic is at most {MAX_TOPIC_BYTES} bytes")]
    TooLong,
    /// More than [`MAX_TOPIC_SEGMENTS`].
    #[error("a topic has at most {MAX_TOPIC_SEGMENTS} segments")]
    TooDeep,
    /// A segment is longer than [`MAX_SEGMENT_BYTES`].
    #[error("a topic's segment is at most {MAX_SEGMENT_BYTES} bytes")]
    SegmentTooLong,
    /// A segment is `.` or `..`.
    #[error("'.' and '..' are no topic segments")]
    Dots,
    /// A character outside `[A-Za-z0-9_.:@=+~-]`.
    #[error("a topic's segments are of [A-Za-z0-9_.:@=+~-]")]
    Character,
    /// `*` is not the whole segment, or `**` is not the last one.
    #[error("'*' stands for one whole segment and '**' only at the end")]
    Wildcard,
}

fn check(text: &str, wildcards: bool) -> Result<(), InvalidTopic> {
    if text.is_empty() {
        return Err(InvalidTopic::Empty);
    }
    if text.len() > MAX_TOPIC_BYTES {
        return Err(InvalidTopic::TooLong);
    }
    let mut segments = text.split('/').enumerate().peekable();
    while let Some((at, segment)) = segments.next() {
        if at >= MAX_TOPIC_SEGMENTS {
            return Err(InvalidTopic::TooDeep);
        }
        check_segment(segment, wildcards, segments.peek().is_none())?;
    }
    Ok(())
}

fn check_segment(segment: &str, wildcards: bool, is_last: bool) -> Result<(), InvalidTopic> {
    if wildcards && segment.contains('*') {
        return match segment {
            "*" => Ok(()),
            "**" if is_last => Ok(()),
            _ => Err(InvalidTopic::Wildcard),
        };
    }
    match segment {
        "" => return Err(InvalidTopic::Empty),
        "." | ".." => return Err(InvalidTopic::Dots),
        _ if segment.len() > MAX_SEGMENT_BYTES => return Err(InvalidTopic::SegmentTooLong),
        _ => {}
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.:@=+~-".contains(&b);
    if segment.bytes().all(allowed) {
        Ok(())
    } else {
        Err(InvalidTopic::Character)
    }
}

impl Topic {
    /// Checks and takes a topic.
    pub fn new(text: &str) -> Result<Self, InvalidTopic> {
        check(text, false)?;
        Ok(Self(text.into()))
    }

    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first segment.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// Every shorter path, the longest first: `a/b` and `a` for `a/b/c`.
    pub fn parents(&self) -> impl Iterator<Item = &str> {
        let path = self.as_str();
        path.rmatch_indices('/').map(move |(at, _)| &path[..at])
    }
}

impl Pattern {
    /// Checks and takes a topic or pattern.
    pub fn new(text: &str) -> Result<Self, InvalidTopic> {
        check(text, true)?;
        Ok(Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The topic, where the pattern has no wildcard.
    #[must_use]
    pub fn as_topic(&self) -> Option<Topic> {
        if self.0.contains('*') {
            None
        } else {
            Some(Topic(self.0.clone()))
        }
    }

    /// Whether the pattern stands for this topic.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        let mut path = topic.split('/');
        for want in self.0.split('/') {
            match (want, path.next()) {
                ("**", have) => return have.is_some(),
                (_, None) => return false,
                ("*", Some(_)) => {}
                (want, Some(have)) if want == have => {}
                _ => return false,
            }
        }
        path.next().is_none()
    }
}

macro_rules! text_type {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
text_type!(Topic, Pattern);

/// What one stream asks for: sorted, without repeats, at most [`MAX_PATTERNS`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Patterns(Arc<[Pattern]>);

impl Patterns {
    /// Sorts and de-duplicates. The caller has checked the count against [`MAX_PATTERNS`].
    #[must_use]
    pub fn new(mut patterns: Vec<Pattern>) -> Self {
        patterns.sort();
        patterns.dedup();
        Self(patterns.into())
    }

    /// The patterns, sorted.
    #[must_use]
    pub fn as_slice(&self) -> &[Pattern] {
        &self.0
    }

    /// Whether any of them stands for this topic.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        self.0.iter().any(|p| p.matches(topic))
    }

    /// The topics, where none of the patterns has a wildcard.
    #[must_use]
    pub fn as_topics(&self) -> Option<Vec<Topic>> {
        self.0.iter().map(Pattern::as_topic).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parents_are_every_shorter_path() {
        let topic = Topic::new("a/b/c").unwrap();
        assert_eq!(topic.parents().collect::<Vec<_>>(), ["a/b", "a"]);
        assert_eq!(topic.prefix(), "a");
    }

    proptest! {
        #[test]
        fn every_topic_matches_itself_and_the_pattern_that_covers_it(segments in prop::collection::vec("[a-z]{1,3}", 1..6), at in 0usize..6) {
            let topic = segments.join("/");
            prop_assert!(Pattern::new(&topic).unwrap().matches(&topic));
            let mut stars = segments.clone();
            let at = at % stars.len();
            stars[at] = "*".into();
            prop_assert!(Pattern::new(&stars.join("/")).unwrap().matches(&topic));
            let mut deep = segments[..at].to_vec();
            deep.push("**".into());
            prop_assert!(Pattern::new(&deep.join("/")).unwrap().matches(&topic));
        }
    }
}
