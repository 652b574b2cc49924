//! How long topics live: durable ones until an age, a count or a size is passed, ephemeral ones not at all.

use std::time::Duration;

use crate::topic::{Pattern, Topic};

/// How long a durable topic's events are kept where no rule says otherwise.
pub const DEFAULT_MAX_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What becomes of a topic's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Never stored, at most once.
    Ephemeral,
    /// Kept in the log until the first of these is passed.
    Durable {
        /// The oldest event that is kept.
        max_age: Option<Duration>,
        /// The most events that all topics of the rule hold together, in each tenant.
        max_count: Option<u64>,
        /// The most bytes that all topics of the rule hold together, in each tenant.
        max_bytes: Option<u64>,
    },
}

/// One `[[topics]]` entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRule {
    /// The topics that it governs.
    pub pattern: Pattern,
    /// What becomes of their events.
    pub keep: Keep,
}

/// All rules. The first that matches a topic governs it; the default governs the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicRules {
    rules: Vec<TopicRule>,
}

impl TopicRules {
    /// Rules in their order of precedence.
    #[must_use]
    pub fn new(rules: Vec<TopicRule>) -> Self {
        Self { rules }
    }

    /// The number of the rule that governs a topic: its place, or one past the last for the default.
    #[must_use]
    pub fn number(&self, topic: &str) -> usize {
        self.rules
            .iter()
            .position(|r| r.pattern.matches(topic))
            .unwrap_or(self.rules.len())
    }

    /// What a rule of [`TopicRules::number`] says.
    #[must_use]
    pub fn keep(&self, number: usize) -> Keep {
        let default = Keep::Durable {
            max_age: Some(DEFAULT_MAX_AGE),
            max_count: None,
            max_bytes: None,
        };
        self.rules.get(number).map_or(default, |r| r.keep)
    }

    /// Whether a topic's events are never stored.
    #[must_use]
    pub fn is_ephemeral(&self, topic: &Topic) -> bool {
        self.keep(self.number(topic.as_str())) == Keep::Ephemeral
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_matches_governs() {
        let rule = |pattern: &str, keep| TopicRule {
            pattern: Pattern::new(pattern).unwrap(),
            keep,
        };
        let short = Keep::Durable {
            max_age: None,
            max_count: Some(1),
            max_bytes: None,
        };
        let rules = TopicRules::new(vec![
            rule("vitals/kept", short),
            rule("vitals/**", Keep::Ephemeral),
        ]);
        assert_eq!(rules.keep(rules.number("vitals/kept")), short);
        assert!(rules.is_ephemeral(&Topic::new("vitals/7").unwrap()));
        assert!(!rules.is_ephemeral(&Topic::new("alarms").unwrap()));
    }
}
