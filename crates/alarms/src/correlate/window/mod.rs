//! Correlation as occurrences come in: what is held at any time is partitioned as the batch would partition it.
//!
//! An occurrence is held for [`HOLD_SECONDS`] after it was raised and after it came in; then it is settled: its links and
//! its cluster are what they are. What is settled is remembered until [`MEMORY_SECONDS`] have passed, since what is still
//! held, and what comes late, has it among its neighbours. What comes in changes the links of its neighbourhood in time
//! alone, so only that is looked at again.
//!
//! - `plan`: from links to what has to be changed

mod plan;

use std::ops::Range;
use std::sync::Arc;

use super::cause::{self, AFTER, APART, BACK, BEFORE, Joins};
use super::delay::AHEAD;
use super::field::Field;
use super::network::{Names, Network};
use super::{Link, Occurrence, Rules, SECOND};
use crate::topology::Topology;

/// How long an occurrence may still be moved by what comes late.
pub const HOLD_SECONDS: i64 = 720;
/// How long it is remembered: all that the links of what is held depend on, also where that came some minutes late.
pub const MEMORY_SECONDS: i64 = HOLD_SECONDS + 600;
/// The most that are remembered: beyond it the oldest settle and go early.
const MOST: usize = 1_000_000;

/// An occurrence, and when it came in.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// What was raised.
    pub occurrence: Occurrence,
    /// When it came in, in microseconds.
    pub arrived_at: i64,
    /// The cluster that it is in already, where it is loaded again.
    pub cluster: Option<u64>,
}

#[derive(Debug, Clone)]
struct Held {
    event_id: Box<str>,
    arrived_at: i64,
    /// 0 while it is in none.
    cluster: u64,
    is_changed: bool,
    /// Whether its links and its cluster change no more, but by the whole cluster's becoming a part of another.
    is_settled: bool,
}

/// What is held, in the order of time.
#[derive(Debug)]
pub struct Window {
    rules: Rules,
    topology: Arc<Topology>,
    network: Network<Arc<str>>,
    kinds: Names<Arc<str>>,
    at: Vec<i64>,
    entity: Vec<u32>,
    kind: Vec<u32>,
    held: Vec<Held>,
    joins: Vec<Joins>,
}

/// Why and where one occurrence stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The occurrence.
    pub event_id: String,
    /// The cluster that it was in.
    pub was: Option<u64>,
    /// What it joined, and why.
    pub cause: Option<(String, Link)>,
    /// The one of the same type that it joined.
    pub kin: Option<String>,
    pub(super) place: u32,
}

/// A cluster that is new or has changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Component {
    /// The cluster that it goes on with; none makes a new one.
    pub cluster: Option<u64>,
    /// Those that have become a part of it.
    pub merged: Vec<u64>,
    /// The closed cluster that it goes on from.
    pub continues: Option<u64>,
    /// Those that are new in it, or joined otherwise than before.
    pub changed: Vec<Member>,
    /// The probable root, by those that are held.
    pub root: String,
    /// How much the root explains, 0 to 1.
    pub confidence: f64,
    /// Places of all that are held.
    pub(super) places: Vec<u32>,
}

impl Window {
    /// Nothing is held.
    #[must_use]
    pub fn new(topology: Arc<Topology>, rules: Rules) -> Self {
        Self {
            rules,
            topology,
            network: Network::default(),
            kinds: Names::default(),
            at: Vec::new(),
            entity: Vec::new(),
            kind: Vec::new(),
            held: Vec::new(),
            joins: Vec::new(),
        }
    }

    /// How many are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Goes by another topology from now on; all that is not settled is looked at again.
    pub fn set_topology(&mut self, topology: Arc<Topology>) {
        if Arc::ptr_eq(&topology, &self.topology) {
            return;
        }
        self.topology = topology;
        self.number_anew();
        self.link(std::slice::from_ref(&(i64::MIN / 4..i64::MAX / 4)));
    }

    /// Gives those entities and types numbers that something has, and no others.
    fn number_anew(&mut self) {
        let (mut network, mut kinds) = (Network::default(), Names::default());
        let vias = self.joins.iter_mut().filter_map(|joins| joins.via.as_mut());
        for entity in self.entity.iter_mut().chain(vias) {
            *entity = network.number(self.network.name(*entity));
        }
        for kind in &mut self.kind {
            *kind = kinds.number(self.kinds.name(*kind));
        }
        network.learn(&self.topology);
        (self.network, self.kinds) = (network, kinds);
    }

    /// Takes in occurrences, in any order.
    pub fn add(&mut self, mut arrivals: Vec<Arrival>) {
        if arrivals.is_empty() {
            return;
        }
        arrivals.sort_unstable_by(|a, b| {
            let key = |a: &Arrival| a.occurrence.raised_at;
            (key(a), &a.occurrence.event_id).cmp(&(key(b), &b.occurrence.event_id))
        });
        let spans = spans(&arrivals);
        self.merge(arrivals);
        let topology = self.topology.clone();
        self.network.learn(&topology);
        self.link(&spans);
    }

    /// Remembers again what came in within [`MEMORY_SECONDS`], with its clusters.
    pub fn restore(&mut self, arrivals: Vec<Arrival>, now: i64) {
        self.add(arrivals);
        for held in &mut self.held {
            held.is_changed &= held.cluster == 0;
        }
        self.settle(now);
        // The first ones have lost neighbours: their links are not what they were.
        let whole = now - MEMORY_SECONDS * SECOND + BACK + APART;
        for place in 0..self.at.partition_point(|&at| at < whole) {
            self.joins[place] = Joins::default();
            self.held[place].is_settled = self.held[place].cluster != 0;
        }
    }

    /// Puts sorted arrivals in their places.
    fn merge(&mut self, arrivals: Vec<Arrival>) {
        let first = &arrivals[0].occurrence;
        let (at, id) = (first.raised_at.as_micros(), first.event_id.as_str());
        let from = self.at.partition_point(|&t| t < at);
        let from = from
            + self.held[from..]
                .iter()
                .zip(&self.at[from..])
                .take_while(|(held, t)| **t == at && *held.event_id < *id)
                .count();
        let (old_at, old_entity) = (self.at.split_off(from), self.entity.split_off(from));
        let (old_kind, old_held) = (self.kind.split_off(from), self.held.split_off(from));
        let mut old_joins = self.joins.split_off(from).into_iter();
        let mut old = old_at
            .into_iter()
            .zip(old_entity)
            .zip(old_kind.into_iter().zip(old_held))
            .peekable();
        let mut new = arrivals.into_iter().peekable();
        // Where those from `from` on have gone.
        let mut moved = Vec::new();
        loop {
            let takes_old = match (old.peek(), new.peek()) {
                (None, None) => break,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some(((at, _), (_, held))), Some(new)) => {
                    let o = &new.occurrence;
                    (*at, &*held.event_id) < (o.raised_at.as_micros(), o.event_id.as_str())
                }
            };
            if takes_old {
                let Some(((at, entity), (kind, held))) = old.next() else {
                    break;
                };
                moved.push(number(self.at.len()));
                self.push(at, entity, kind, held, old_joins.next().unwrap_or_default());
            } else if let Some(new) = new.next() {
                let entity = self.network.number(&new.occurrence.entity_id);
                let kind = self.kinds.number(&new.occurrence.alarm_type);
                let held = Held {
                    event_id: new.occurrence.event_id.into(),
                    arrived_at: new.arrived_at,
                    cluster: new.cluster.unwrap_or(0),
                    is_changed: new.cluster.is_none(),
                    is_settled: false,
                };
                self.push(
                    new.occurrence.raised_at.as_micros(),
                    entity,
                    kind,
                    held,
                    Joins::default(),
                );
            }
        }
        self.renumber(|place| match place as usize {
            same if same < from => Some(place),
            old => moved.get(old - from).copied(),
        });
    }

    fn push(&mut self, at: i64, entity: u32, kind: u32, held: Held, joins: Joins) {
        self.at.push(at);
        self.entity.push(entity);
        self.kind.push(kind);
        self.held.push(held);
        self.joins.push(joins);
    }

    /// Gives the places that links name their new numbers; a new link was made by nobody yet.
    fn renumber(&mut self, to: impl Fn(u32) -> Option<u32>) {
        for joins in &mut self.joins {
            joins.cause = joins
                .cause
                .and_then(|(place, link)| Some((to(place)?, link)));
            joins.kin = joins.kin.and_then(&to);
        }
    }

    /// Finds the links of all within spans of time.
    fn link(&mut self, spans: &[Range<i64>]) {
        for span in spans {
            let place = |t: i64| self.at.partition_point(|&at| at < t);
            let whole = place(span.start - APART - BACK)..place(span.end + APART + AHEAD);
            let offset = whole.start;
            let within = |from: i64, to: i64| place(from) - offset..place(to) - offset;
            let (around, wanted) = (
                within(span.start - APART, span.end + APART),
                within(span.start, span.end),
            );
            let field = Field::new(
                &self.at[whole.clone()],
                &self.entity[whole.clone()],
                &self.kind[whole],
                &self.network,
            );
            let links = cause::links(&field, &self.rules, around, wanted.clone());
            let shift = number(offset);
            for (place, mut joins) in (wanted.start + offset..).zip(links) {
                joins.cause = joins.cause.map(|(place, link)| (place + shift, link));
                joins.kin = joins.kin.map(|place| place + shift);
                if self.joins[place] != joins && !self.held[place].is_settled {
                    self.joins[place] = joins;
                    self.held[place].is_changed = true;
                }
            }
        }
    }

    /// Settles what has been held for long enough, as far as it is in a cluster, and forgets what is remembered no more.
    /// All that came in before `now`, in microseconds, must have been added.
    pub fn settle(&mut self, now: i64) {
        let (settled, forgotten) = (now - HOLD_SECONDS * SECOND, now - MEMORY_SECONDS * SECOND);
        let too_many = self.held.len().saturating_sub(MOST);
        let mut goes = Vec::with_capacity(self.held.len());
        for (place, (held, &at)) in self.held.iter_mut().zip(&self.at).enumerate() {
            let last = at.max(held.arrived_at);
            let is_done = held.cluster != 0 && !held.is_changed;
            held.is_settled |= is_done && last < settled;
            goes.push(is_done && (last < forgotten || place < too_many));
        }
        if goes.contains(&true) {
            self.settle_beside(&goes);
            self.retain(&goes);
        }
    }

    /// What is linked to something that goes cannot be linked anew: it settles.
    fn settle_beside(&mut self, goes: &[bool]) {
        for (place, joins) in self.joins.iter().enumerate() {
            for other in joins.others() {
                let other = other as usize;
                if goes[place] != goes[other] {
                    let stays = if goes[place] { other } else { place };
                    self.held[stays].is_settled |= self.held[stays].cluster != 0;
                }
            }
        }
    }

    /// Forgets those that go.
    fn retain(&mut self, goes: &[bool]) {
        let mut places = Vec::with_capacity(goes.len());
        let mut next = 0u32;
        for &goes in goes {
            places.push((!goes).then_some(next));
            next += u32::from(!goes);
        }
        self.renumber(|place| places[place as usize]);
        keep(&mut self.at, goes);
        keep(&mut self.entity, goes);
        keep(&mut self.kind, goes);
        keep(&mut self.held, goes);
        keep(&mut self.joins, goes);
        // Names that nothing has any more would pile up.
        if self.network.len() + self.kinds.len() >= 4 * self.held.len() + 10_000 {
            self.number_anew();
        }
    }

    /// The clusters that something remembered is in.
    pub fn clusters(&self) -> impl Iterator<Item = u64> {
        let all = self.held.iter().map(|held| held.cluster);
        all.filter(|&c| c != 0)
    }
}

fn keep<T>(list: &mut Vec<T>, goes: &[bool]) {
    let mut goes = goes.iter();
    list.retain(|_| !goes.next().is_some_and(|&goes| goes));
}

/// The spans of time in which arrivals change links, apart from each other.
fn spans(sorted: &[Arrival]) -> Vec<Range<i64>> {
    let mut spans: Vec<Range<i64>> = Vec::new();
    for arrival in sorted {
        let at = arrival.occurrence.raised_at.as_micros();
        let span = at - BEFORE..at + AFTER + 1;
        match spans.last_mut() {
            Some(last) if span.start <= last.end => last.end = span.end,
            _ => spans.push(span),
        }
    }
    spans
}

fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}
