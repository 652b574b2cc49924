//! Which alarms are one fault: a pure function over occurrences, and the same as they come in.
//!
//! Where the topology is known, each occurrence joins the one that most probably caused it, on its own entity or up its
//! dependency chain, where that is likelier than chance at the local rate of alarms. One without such a cause joins a
//! sibling through a common parent that stayed silent. Where nothing is known of an entity, what it raises within
//! [`WINDOW_SECONDS`] belongs together, and with it what other unknown entities raise of the same type. A cluster is what
//! hangs together by these links, so that neither order nor place in the list matters.
//!
//! - `delay`: how likely a delay is
//! - `network`: entities as numbers, and what each depends on
//! - `field`: occurrences in time and by entity; the local rate of alarms
//! - `cause`: the most probable cause, siblings, and the rule for unknown entities
//! - `group`: links to clusters, and each cluster's root
//! - `window`: the same, occurrence by occurrence
//! - `pieces`: what has changed there, in pieces for one transaction each
//! - `score`: how well a partition agrees with the truth

mod cause;
mod delay;
mod field;
mod group;
mod network;
mod pieces;
pub mod score;
#[cfg(test)]
mod tests;
mod window;

use tidings_core::clock::Timestamp;

use crate::config::TypeRule;
use crate::topology::Topology;

pub use group::{Cluster, Edge};
pub(crate) use pieces::givers;
pub use pieces::{Piece, pieces};
pub use window::{Arrival, Component, HOLD_SECONDS, MEMORY_SECONDS, Member, Window};

/// No link spans more, and this alone binds what an unknown entity raises. Inclusive.
pub const WINDOW_SECONDS: i64 = 300;
const SECOND: i64 = 1_000_000;
const WINDOW: i64 = WINDOW_SECONDS * SECOND;

/// One accepted raise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurrence {
    /// Its own id; of two at the same time, the lesser one comes first.
    pub event_id: String,
    /// What raised it.
    pub entity_id: String,
    /// The alarm's type.
    pub alarm_type: String,
    /// When, by the clock of what raised it.
    pub raised_at: Timestamp,
}

/// What may be chosen about correlation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// When the same alarm type alone joins.
    pub type_rule: TypeRule,
}

/// Why two occurrences are linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// The same entity raised again.
    SameEntity,
    /// The cause is up the dependency chain.
    Dependency,
    /// Both hang on a parent that stayed silent.
    SilentParent,
    /// Unknown entities raised the same type.
    SameType,
}

impl Link {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::SameEntity,
        Self::Dependency,
        Self::SilentParent,
        Self::SameType,
    ];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SameEntity => "same_entity",
            Self::Dependency => "dependency",
            Self::SilentParent => "silent_parent",
            Self::SameType => "same_type",
        }
    }
}

/// Puts occurrences into clusters, the one that began first at the front. Every occurrence is in exactly one.
///
/// O(n log n) on every shape; the order of the input does not matter. At most 2^32 - 1 occurrences; later ones are left
/// alone.
#[must_use]
pub fn correlate(occurrences: &[Occurrence], topology: &Topology, rules: &Rules) -> Vec<Cluster> {
    let order = in_time(occurrences);
    let mut network = network::Network::<&str>::default();
    // Growing a large table costs more than the room that it may not need.
    network.reserve(order.len());
    let mut kinds = network::Names::<&str>::default();
    let (mut at, mut entity, mut kind) = (
        Vec::with_capacity(order.len()),
        Vec::with_capacity(order.len()),
        Vec::with_capacity(order.len()),
    );
    for &i in &order {
        let it = &occurrences[i as usize];
        at.push(it.raised_at.as_micros());
        entity.push(network.number(&it.entity_id));
        kind.push(kinds.number(&it.alarm_type));
    }
    network.learn(topology);
    let field = field::Field::new(&at, &entity, &kind, &network);
    let links = cause::links(&field, rules, 0..order.len(), 0..order.len());
    group::clusters(&field, &links, &network, &order)
}

/// Places of the occurrences in the order of time, then of id.
fn in_time(occurrences: &[Occurrence]) -> Vec<u32> {
    let count = u32::try_from(occurrences.len()).unwrap_or(u32::MAX);
    let mut keyed: Vec<(i64, u32)> = (0..count)
        .zip(occurrences)
        .map(|(i, it)| (it.raised_at.as_micros(), i))
        .collect();
    keyed.sort_unstable();
    for run in keyed.chunk_by_mut(|a, b| a.0 == b.0) {
        if run.len() > 1 {
            by_id(run, occurrences);
        }
    }
    keyed.into_iter().map(|(_, i)| i).collect()
}

/// Sorts what has one time by id; most ids differ in their first bytes.
fn by_id(run: &mut [(i64, u32)], occurrences: &[Occurrence]) {
    let head = |i: u32| {
        let id = occurrences[i as usize].event_id.as_bytes();
        let mut head = [0; 16];
        let known = id.len().min(16);
        head[..known].copy_from_slice(&id[..known]);
        u128::from_be_bytes(head)
    };
    let rest = |i: u32| {
        let it = &occurrences[i as usize];
        (&it.event_id, &it.entity_id, &it.alarm_type)
    };
    let mut heads: Vec<(u128, u32)> = run.iter().map(|&(_, i)| (head(i), i)).collect();
    heads.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| rest(a.1).cmp(&rest(b.1))));
    for (to, (_, i)) in run.iter_mut().zip(heads) {
        to.1 = i;
    }
}
