//! A plan in pieces, each small enough for a transaction that others wait for.

use std::collections::HashSet;

use super::window::Component;

/// What a component costs beside its members, in members: its own row, its incident, and what is told of it.
const COMPONENT: usize = 4;

/// What is carried out at once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Piece {
    /// Parts of the plan.
    pub components: Vec<Component>,
    /// Whether the first of them goes on with what the last one of the piece before began.
    pub goes_on: bool,
}

/// Cuts a plan into pieces of about `most` members; at least one.
///
/// A component that is larger by itself is cut. Those that take members from other clusters come first: what is told of the
/// others is then what is left to them.
#[must_use]
pub fn pieces(plan: Vec<Component>, most: usize) -> Vec<Piece> {
    let takes = |c: &Component| givers(c).next().is_some();
    let (first, then): (Vec<_>, Vec<_>) = plan.into_iter().partition(takes);
    let mut pieces = vec![Piece::default()];
    let mut weight = 0;
    for component in first.into_iter().chain(then) {
        for (at, part) in (0..).zip(split(component, most)) {
            let weighs = weigh(&part);
            if at > 0 || (weight > 0 && weight + weighs > most) {
                pieces.push(Piece::default());
                weight = 0;
            }
            weight += weighs;
            if let Some(piece) = pieces.last_mut() {
                piece.goes_on |= at > 0;
                piece.components.push(part);
            }
        }
    }
    pieces
}

fn weigh(of: &Component) -> usize {
    COMPONENT + of.changed.len()
}

/// The clusters that a component takes members from, and that go on without them.
pub(crate) fn givers(of: &Component) -> impl Iterator<Item = u64> {
    let was = of.changed.iter().filter_map(|member| member.was);
    was.filter(|was| Some(*was) != of.cluster && !of.merged.contains(was))
}

/// Cuts a component into parts that change no more than `most` members each. The first has all that does not change, and
/// brings the clusters together: whoever carries out the parts knows from then on what became of which.
fn split(mut component: Component, most: usize) -> Vec<Component> {
    let changed = std::mem::take(&mut component.changed);
    if changed.len() <= most.max(1) {
        component.changed = changed;
        return vec![component];
    }
    let later: HashSet<u32> = changed.iter().skip(most.max(1)).map(|m| m.place).collect();
    let merged = std::mem::take(&mut component.merged);
    let places = std::mem::take(&mut component.places);
    let mut parts: Vec<Component> = Vec::with_capacity(changed.len() / most.max(1) + 1);
    for members in changed.chunks(most.max(1)) {
        let mut part = Component {
            changed: members.to_vec(),
            places: members.iter().map(|member| member.place).collect(),
            ..component.clone()
        };
        if parts.is_empty() {
            part.merged.clone_from(&merged);
            part.places = places
                .iter()
                .copied()
                .filter(|place| !later.contains(place))
                .collect();
        } else {
            part.continues = None;
        }
        parts.push(part);
    }
    parts
}
