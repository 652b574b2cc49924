//! Which occurrence each joins.

use std::borrow::Borrow;
use std::hash::Hash;
use std::ops::Range;

use super::delay::{self, AHEAD};
use super::field::{Field, RATE, SKEWED};
use super::network::CHILDREN;
use super::{Link, Rules, SECOND, WINDOW};
use crate::config::TypeRule;

/// How far apart two effects of a silent parent may be.
pub(super) const APART: i64 = 30 * SECOND;
/// Hops to a silent parent.
const SILENT_HOPS: u8 = 2;
/// Siblings that are looked at: the nearest in time are the likeliest.
const SIBLINGS: usize = 16;
/// How much earlier than a fault its effects may be stamped, mostly.
const TURN: i64 = SECOND;
/// The part of a silent parent's children that must have raised something.
const PART: f64 = 0.3;

/// What an occurrence joins: another one's place, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Joins {
    /// By cause, by sibling, or on the same entity.
    pub(super) cause: Option<(u32, Link)>,
    /// By type.
    pub(super) kin: Option<u32>,
    /// The silent parent, as a number of the network's.
    pub(super) via: Option<u32>,
}

impl Joins {
    /// The places that it is linked to.
    pub(super) fn others(&self) -> impl Iterator<Item = u32> + use<> {
        let cause = self.cause.map(|(place, _)| place);
        cause.into_iter().chain(self.kin)
    }
}

/// What each of `wanted` joins. `around` must hold `wanted` and [`APART`] more on both sides, where there is that much.
pub(super) fn links<K: Clone + Eq + Hash + Borrow<str>>(
    field: &Field<'_, K>,
    rules: &Rules,
    around: Range<usize>,
    wanted: Range<usize>,
) -> Vec<Joins> {
    let mut joins = vec![Joins::default(); around.len()];
    let mut orphans = Vec::new();
    let mut near = 0..0;
    for i in around.clone() {
        let entity = field.entity[i];
        if !field.network.is_known(entity) {
            joins[i - around.start].cause = unknown(field, i);
            continue;
        }
        advance(field, &mut near, i);
        let has_parents = !field.network.up(entity).is_empty();
        let best = probable(field, i);
        if best.is_none() && !has_parents {
            continue;
        }
        let threshold = field.threshold(i, &near);
        match best.filter(|best| best.weight > threshold) {
            Some(best) => joins[i - around.start].cause = Some((number(best.place), best.link)),
            None if has_parents => orphans.push((i, threshold)),
            None => {}
        }
    }
    siblings(field, &orphans, &around, &mut joins);
    same_type(field, rules, &around, &mut joins);
    joins.drain(wanted.end - around.start..);
    joins.drain(..wanted.start - around.start);
    joins
}

/// Moves the places that the rate at `i` is counted over.
fn advance<K>(field: &Field<'_, K>, near: &mut Range<usize>, i: usize) {
    let t = field.at[i];
    if near.end == 0 {
        near.start = field.at.partition_point(|&at| at < t - RATE);
        near.end = i;
    }
    while field.at[near.start] < t - RATE {
        near.start += 1;
    }
    while near.end < field.at.len() && field.at[near.end] < t + SKEWED {
        near.end += 1;
    }
}

struct Candidate {
    weight: f64,
    place: usize,
    link: Link,
}

impl Candidate {
    /// Of two that are as likely, the earlier one.
    fn is_better(&self, than: Option<&Self>) -> bool {
        than.is_none_or(|than| {
            self.weight > than.weight || (self.weight >= than.weight && self.place < than.place)
        })
    }
}

/// The likeliest cause on the entity itself or up its chain.
fn probable<K: Clone + Eq + Hash + Borrow<str>>(
    field: &Field<'_, K>,
    i: usize,
) -> Option<Candidate> {
    let (entity, t) = (field.entity[i], field.at[i]);
    let mut best: Option<Candidate> = None;
    let mut offer = |weight: f64, place: usize, link: Link| {
        let candidate = Candidate {
            weight,
            place,
            link,
        };
        if weight > 0.0 && candidate.is_better(best.as_ref()) {
            best = Some(candidate);
        }
    };
    let before = field.before(i);
    if let Some(before) = before {
        let weight = delay::by_repeat(t - field.at[before]);
        if weight > 0.0 && !is_new_fault(field, i, before) {
            offer(weight, before, Link::SameEntity);
        }
    }
    for &(up, hops) in field.network.up(entity) {
        let slots = field.slots(up);
        if slots.is_empty() {
            continue;
        }
        let hops = usize::from(hops);
        // The density falls off on both sides of the likeliest delay: the best is the nearest to it on one of them.
        let after = field.first_slot(up, t - delay::likeliest(hops));
        for slot in [after.checked_sub(1), Some(after)].into_iter().flatten() {
            if slots.contains(&slot) {
                let cause = field.when(slot);
                let weight = delay::by_dependency(hops, t - cause);
                // One cause has one effect on an entity; what comes after it is a repeat, or something else.
                let is_spent = before.is_some_and(|before| {
                    delay::by_dependency(hops, field.at[before] - cause) > weight
                });
                if !is_spent {
                    offer(weight, field.place(slot), Link::Dependency);
                }
            }
        }
    }
    best
}

/// Whether an entity that raised before is at fault anew: what hangs on it raised again as well, as it does not for a
/// mere repeat.
fn is_new_fault<K: Clone + Eq + Hash + Borrow<str>>(
    field: &Field<'_, K>,
    i: usize,
    before: usize,
) -> bool {
    let entity = field.entity[i];
    let fan = field.network.fan(entity);
    if fan < 2 {
        return false;
    }
    let (begin, turn, end) = (
        field.at[before] - TURN,
        field.at[i] - TURN,
        field.at[i] + AHEAD,
    );
    let again = field.network.down(entity).filter(|&child| {
        let slots = field.slots(child);
        let first = field.first_slot(child, begin);
        if first == slots.end || field.when(first) >= turn {
            return false;
        }
        let then = field.first_slot(child, turn);
        then < slots.end && field.when(then) < end
    });
    let again = again.count();
    again >= 2 && is_enough(again, fan.min(CHILDREN))
}

/// What an entity without relations raised before, within the window.
fn unknown<K: Clone + Eq + Hash + Borrow<str>>(
    field: &Field<'_, K>,
    i: usize,
) -> Option<(u32, Link)> {
    let before = field.before(i)?;
    (field.at[i] - field.at[before] <= WINDOW).then(|| (number(before), Link::SameEntity))
}

/// Those that no cause explains, joined through a parent that stayed silent.
fn siblings<K: Clone + Eq + Hash + Borrow<str>>(
    field: &Field<'_, K>,
    orphans: &[(usize, f64)],
    around: &Range<usize>,
    joins: &mut [Joins],
) {
    // Under each parent within reach, its orphans in the order of time.
    let mut under: Vec<(u32, u32, u8)> = Vec::new();
    for (n, &(i, _)) in (0u32..).zip(orphans) {
        let up = field.network.up(field.entity[i]);
        let near = up.iter().take_while(|&&(_, hops)| hops <= SILENT_HOPS);
        under.extend(near.map(|&(up, hops)| (up, n, hops)));
    }
    under.sort_unstable();
    let mut best: Vec<Option<(Candidate, u32)>> = Vec::new();
    best.resize_with(orphans.len(), || None);
    for group in under.chunk_by(|a, b| a.0 == b.0) {
        let via = group[0].0;
        let wanted = field.network.fan(via);
        let mut from = 0;
        let mut to = 0;
        for (k, &(_, n, hops)) in group.iter().enumerate() {
            let (i, threshold) = orphans[n as usize];
            let t = field.at[i];
            let when = |k: usize| field.at[orphans[group[k].1 as usize].0];
            while when(from) < t - APART {
                from += 1;
            }
            while to < group.len() && when(to) <= t + APART {
                to += 1;
            }
            if !is_enough(to - from, wanted) {
                continue;
            }
            for &(_, other, other_hops) in group[from..k].iter().rev().take(SIBLINGS) {
                let (j, _) = orphans[other as usize];
                if field.entity[j] == field.entity[i] {
                    continue;
                }
                let hops = (usize::from(hops), usize::from(other_hops));
                let candidate = Candidate {
                    weight: delay::by_silent_parent(hops, t - field.at[j]),
                    place: j,
                    link: Link::SilentParent,
                };
                let so_far = &mut best[n as usize];
                let is_better = match so_far {
                    Some((best, _)) if best.place == j && best.weight <= candidate.weight => {
                        best.weight < candidate.weight
                            || so_far.as_ref().is_some_and(|(_, v)| {
                                field.network.name(via) < field.network.name(*v)
                            })
                    }
                    _ => candidate.is_better(so_far.as_ref().map(|(c, _)| c)),
                };
                if candidate.weight > threshold && is_better {
                    *so_far = Some((candidate, via));
                }
            }
        }
    }
    for (best, &(i, _)) in best.into_iter().zip(orphans) {
        if let Some((candidate, via)) = best {
            let joins = &mut joins[i - around.start];
            joins.cause = Some((number(candidate.place), candidate.link));
            joins.via = Some(via);
        }
    }
}

/// Whether so many orphans speak for a silent parent of so many children.
#[expect(clippy::cast_precision_loss, reason = "a count of children")]
fn is_enough(orphans: usize, children: usize) -> bool {
    orphans as f64 >= children as f64 * PART
}

/// The one of the same type before, where the type alone joins.
fn same_type<K: Clone + Eq + Hash + Borrow<str>>(
    field: &Field<'_, K>,
    rules: &Rules,
    around: &Range<usize>,
    joins: &mut [Joins],
) {
    let takes = |entity: u32| match rules.type_rule {
        TypeRule::UnknownTopology => !field.network.is_known(entity),
        TypeRule::Always => true,
        TypeRule::Never => false,
    };
    if rules.type_rule == TypeRule::Never {
        return;
    }
    let kinds = field.kind.iter().max().map_or(0, |&k| k as usize + 1);
    let mut last: Vec<Option<u32>> = vec![None; kinds];
    let begin = field.at.partition_point(|&t| {
        field
            .at
            .get(around.start)
            .is_some_and(|&first| t < first.saturating_sub(WINDOW))
    });
    for i in begin..around.end {
        if !takes(field.entity[i]) {
            continue;
        }
        let last = &mut last[field.kind[i] as usize];
        if i >= around.start
            && let Some(before) = *last
            && field.at[i] - field.at[before as usize] <= WINDOW
        {
            joins[i - around.start].kin = Some(before);
        }
        *last = Some(number(i));
    }
}

fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// How much earlier than those whose links are sought the field must begin: a cause is within the window, and what it
/// had on an entity before, a little ahead of it.
pub(super) const BACK: i64 = WINDOW + AHEAD;
/// How much earlier than a new occurrence those may be that it changes the links of.
pub(super) const BEFORE: i64 = AHEAD + APART;
/// How much later.
pub(super) const AFTER: i64 = BACK + APART;
