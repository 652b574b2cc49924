//! What a principal may read of what it asks for.

use std::sync::Arc;

use tidings_core::auth::{Action, Policies, Principal};
use tidings_core::hub::Rights;
use tidings_core::topic::{Pattern, Patterns, Topic};

/// What a principal may read of what was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    /// The patterns that can lead to something.
    pub(crate) patterns: Patterns,
    /// What may be seen of them.
    pub(crate) rights: Rights,
    /// Equal for equal scopes.
    class: Option<Arc<str>>,
}

impl Scope {
    /// Asks the policies. What is forbidden comes beside what is left.
    #[must_use]
    pub(super) fn of(
        policies: &Arc<Policies>,
        version: u64,
        principal: &Arc<Principal>,
        asked: &Patterns,
    ) -> (Self, Vec<Pattern>) {
        let (mut allowed, mut lost, mut is_exact) = (Vec::new(), Vec::new(), true);
        for pattern in asked.as_slice() {
            let may = match pattern.as_topic() {
                Some(topic) => policies.allows(principal, Action::Subscribe, &topic),
                None => {
                    is_exact = false;
                    policies.may_allow(principal, Action::Subscribe, pattern)
                }
            };
            if may {
                allowed.push(pattern.clone());
            } else {
                lost.push(pattern.clone());
            }
        }
        let patterns = Patterns::new(allowed);
        if is_exact {
            let all = Self {
                patterns,
                rights: Rights::All,
                class: None,
            };
            return (all, lost);
        }
        let of = policies.class(principal);
        let class: Arc<str> = format!("{version}:{of:?}").into();
        let (policies, principal) = (policies.clone(), principal.clone());
        let admits = Arc::new(move |topic: &str| {
            Topic::new(topic).is_ok_and(|topic| {
                policies.allows_class(&of, &principal, Action::Subscribe, &topic)
            })
        });
        let rights = Rights::Filtered {
            class: class.clone(),
            admits,
        };
        let filtered = Self {
            patterns,
            rights,
            class: Some(class),
        };
        (filtered, lost)
    }

    /// Whether a reader of one sees exactly what a reader of the other does.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.patterns == other.patterns && self.class == other.class
    }
}
