//! Occurrences in time and by entity, and how many alarms come by chance.

use std::borrow::Borrow;
use std::cell::Cell;
use std::hash::Hash;
use std::ops::Range;

use super::SECOND;
use super::delay::seconds;
use super::network::Network;

/// How far back alarms are counted for the local rate.
pub(super) const RATE: i64 = 240 * SECOND;
/// One that nothing on its chain came before within this time began by itself.
pub(super) const FRESH: i64 = 60 * SECOND;
/// How far ahead a cause's clock may be and still be seen as having come before.
pub(super) const SKEWED: i64 = 6 * SECOND;
/// Alarms a second and entity that come by chance where nothing has been seen: three a week.
const QUIET: f64 = 4.5e-6;
/// A network is never taken for smaller: a handful of entities says little of how often they fail.
const SMALLEST: f64 = 100.0;
/// How much likelier than chance a cause must be at the usual rate, and how that falls as the rate grows.
const MARGIN: f64 = 2.5;
const USUAL: f64 = 1e-4;
const EASE: f64 = 0.25;

/// Occurrences in the order of time.
#[derive(Debug)]
pub(super) struct Field<'a, K> {
    /// When each was raised.
    pub(super) at: &'a [i64],
    /// On what.
    pub(super) entity: &'a [u32],
    /// Of what type.
    pub(super) kind: &'a [u32],
    pub(super) network: &'a Network<K>,
    /// By entity: where its occurrences begin in `place`.
    starts: Vec<u32>,
    /// Places in the order of time, entity by entity.
    place: Vec<u32>,
    /// The same occurrences' times.
    when: Vec<i64>,
    /// By entity, the slot that was found last.
    hints: Vec<Cell<u32>>,
    /// Where in `place` each is.
    slot: Vec<u32>,
    /// How many of those before a slot began by themselves.
    fresh: Vec<u32>,
    /// How many of those before a place began by themselves.
    fresh_by_time: Vec<u32>,
}

impl<'a, K: Clone + Eq + Hash + Borrow<str>> Field<'a, K> {
    pub(super) fn new(
        at: &'a [i64],
        entity: &'a [u32],
        kind: &'a [u32],
        network: &'a Network<K>,
    ) -> Self {
        let mut starts = vec![0u32; network.len() + 1];
        for &e in entity {
            starts[e as usize + 1] += 1;
        }
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        let hints = starts[..network.len()]
            .iter()
            .map(|&s| Cell::new(s))
            .collect();
        let mut next = starts.clone();
        let (mut place, mut when) = (vec![0; at.len()], vec![0; at.len()]);
        let mut slot = Vec::with_capacity(at.len());
        for ((i, &e), &t) in (0u32..).zip(entity).zip(at) {
            let to = next[e as usize];
            next[e as usize] += 1;
            (place[to as usize], when[to as usize]) = (i, t);
            slot.push(to);
        }
        let mut field = Self {
            at,
            entity,
            kind,
            network,
            starts,
            place,
            when,
            hints,
            slot,
            fresh: Vec::new(),
            fresh_by_time: Vec::new(),
        };
        field.count_fresh();
        field
    }

    /// None is where nothing is known of any: then nobody asks.
    fn count_fresh(&mut self) {
        if !self.network.knows_any() {
            return;
        }
        let mut is_fresh = vec![0u32; self.at.len() + 1];
        let mut by_time = Vec::with_capacity(self.at.len() + 1);
        by_time.push(0);
        let mut sum = 0;
        for i in 0..self.at.len() {
            let fresh = u32::from(self.is_fresh(i));
            is_fresh[self.slot[i] as usize + 1] = fresh;
            sum += fresh;
            by_time.push(sum);
        }
        for i in 1..is_fresh.len() {
            is_fresh[i] += is_fresh[i - 1];
        }
        (self.fresh, self.fresh_by_time) = (is_fresh, by_time);
    }

    /// Whether nothing came before on its chain: it may be caused all the same, but it counts as one that came by itself.
    fn is_fresh(&self, i: usize) -> bool {
        let (entity, t) = (self.entity[i], self.at[i]);
        if !self.network.is_known(entity) {
            return false;
        }
        let came_before = |entity: u32, until: i64| {
            let slots = self.slots(entity);
            let from = self.first_slot(entity, t - FRESH);
            from < slots.end && self.when[from] < until
        };
        !came_before(entity, t)
            && self
                .network
                .up(entity)
                .iter()
                .all(|&(up, _)| !came_before(up, t + SKEWED))
    }

    /// Where an entity's occurrences are.
    pub(super) fn slots(&self, entity: u32) -> Range<usize> {
        self.starts[entity as usize] as usize..self.starts[entity as usize + 1] as usize
    }

    /// The first slot of an entity's at or after a time. Sought from where the last one was found: questions go with time.
    pub(super) fn first_slot(&self, entity: u32, from: i64) -> usize {
        let Range { start, end } = self.slots(entity);
        let hint = &self.hints[entity as usize];
        let at = (hint.get() as usize).clamp(start, end);
        let (mut low, mut high, mut step) = (start, end, 1);
        if at < end && self.when[at] < from {
            low = at + 1;
            while low + step <= end && self.when[low + step - 1] < from {
                low += step;
                step *= 2;
            }
            high = end.min(low + step);
        } else {
            high = high.min(at);
            while high >= start + step && self.when[high - step] >= from {
                high -= step;
                step *= 2;
            }
            low = low.max(high.saturating_sub(step));
        }
        let found = low + self.when[low..high].partition_point(|&t| t < from);
        hint.set(u32::try_from(found).unwrap_or(u32::MAX));
        found
    }

    /// Whose place a slot is.
    pub(super) fn place(&self, slot: usize) -> usize {
        self.place[slot] as usize
    }

    /// When it was raised.
    pub(super) fn when(&self, slot: usize) -> i64 {
        self.when[slot]
    }

    /// The one before on the same entity.
    pub(super) fn before(&self, i: usize) -> Option<usize> {
        let slot = self.slot[i];
        (slot > self.starts[self.entity[i] as usize])
            .then(|| self.place[slot as usize - 1] as usize)
    }

    /// How dense the likelihood of a cause must be to count for more than chance, `near` being the places within the
    /// time that the rate is counted over.
    pub(super) fn threshold(&self, i: usize, near: &Range<usize>) -> f64 {
        let (entity, t) = (self.entity[i], self.at[i]);
        let of = |entity: u32| {
            let slots = self.slots(entity);
            if slots.is_empty() {
                return 0;
            }
            let from = self.first_slot(entity, t - RATE);
            let to = self.first_slot(entity, t + SKEWED);
            self.fresh[to] - self.fresh[from]
        };
        let up = self.network.up(entity);
        let own: u32 = of(entity) + up.iter().map(|&(up, _)| of(up)).sum::<u32>();
        let all = self.fresh_by_time[near.end] - self.fresh_by_time[near.start];
        #[expect(clippy::cast_precision_loss, reason = "a count of entities")]
        let size = (self.network.size as f64).max(SMALLEST);
        let rate = f64::from(all.saturating_sub(own)) / (seconds(RATE + SKEWED) * size) + QUIET;
        MARGIN * rate * (USUAL / rate).powf(EASE)
    }
}
