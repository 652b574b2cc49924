//! Correlation as occurrences come in: what is held at any time is partitioned as the batch would partition it.
//!
//! An occurrence is held for [`HOLD_SECONDS`] after it was raised and after it came in; then it is settled: its cluster
//! is what it is, and those that were linked to it stay in that cluster. What comes in changes the links of its
//! neighbourhood in time alone, so only that is looked at again.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::cause::{self, AFTER, APART, BACK, BEFORE, Joins};
use super::delay::AHEAD;
use super::field::Field;
use super::group::{Roots, Sets};
use super::network::{Names, Network};
use super::{Link, Occurrence, Rules, SECOND};
use crate::topology::Topology;

/// How long an occurrence may still be joined, moved and found to be the cause of what comes late.
pub const HOLD_SECONDS: i64 = 720;
/// The most that are held: beyond it the oldest settle early.
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
    /// The cluster of settled ones that it is linked to.
    tied: u64,
    is_changed: bool,
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

    /// Goes by another topology from now on; all that is held is looked at again.
    pub fn set_topology(&mut self, topology: Arc<Topology>) {
        if Arc::ptr_eq(&topology, &self.topology) {
            return;
        }
        let mut network = Network::default();
        for entity in &mut self.entity {
            *entity = network.number(self.network.name(*entity));
        }
        network.learn(&topology);
        (self.network, self.topology) = (network, topology);
        self.link(std::slice::from_ref(&(i64::MIN / 4..i64::MAX / 4)));
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

    /// Holds again what was held: occurrences with their clusters, and enough that was settled for them to find their
    /// neighbours.
    pub fn restore(&mut self, arrivals: Vec<Arrival>, now: i64) {
        self.add(arrivals);
        for held in &mut self.held {
            held.is_changed &= held.cluster == 0;
        }
        self.settle(now);
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
                    tied: 0,
                    is_changed: new.cluster.is_none(),
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
                if self.joins[place] != joins {
                    self.joins[place] = joins;
                    self.held[place].is_changed = true;
                }
            }
        }
    }

    /// What has to be changed so that each cluster is what hangs together. Those that are `closed` change no more: what
    /// would join them makes a cluster that goes on from them.
    #[must_use]
    pub fn plan(&self, closed: &HashSet<u64>) -> Vec<Component> {
        let components = self.components();
        let anchors = self.anchors(&components, closed);
        // By component, the open clusters that stand there.
        let mut standing: HashMap<u32, Vec<u64>> = HashMap::new();
        for (&cluster, &component) in &anchors {
            standing.entry(component).or_default().push(cluster);
        }
        let mut places: HashMap<u32, Vec<u32>> = HashMap::new();
        let mut touched: HashSet<u32> = HashSet::new();
        for (place, &component) in (0u32..).zip(&components) {
            places.entry(component).or_default().push(place);
            let held = &self.held[place as usize];
            let stays = standing.get(&component).and_then(|s| s.iter().min());
            if !closed.contains(&held.cluster) && (held.is_changed || stays != Some(&held.cluster))
            {
                touched.insert(component);
                touched.extend(anchors.get(&held.cluster));
            }
        }
        let mut touched: Vec<u32> = touched.into_iter().collect();
        touched.sort_unstable();
        let mut roots = Roots::new(&self.network);
        touched
            .into_iter()
            .filter_map(|component| {
                let places = places.remove(&component)?;
                let mut standing = standing.remove(&component).unwrap_or_default();
                standing.sort_unstable();
                self.component(places, &standing, closed, &mut roots)
            })
            .collect()
    }

    /// By place, the first place of what it hangs together with.
    fn components(&self) -> Vec<u32> {
        let mut sets = Sets::new(self.held.len());
        let mut ties: HashMap<u64, u32> = HashMap::new();
        for (place, (joins, held)) in (0u32..).zip(self.joins.iter().zip(&self.held)) {
            for other in joins
                .cause
                .map(|(place, _)| place)
                .into_iter()
                .chain(joins.kin)
            {
                sets.unite(place, other);
            }
            if held.tied != 0 {
                let with = *ties.entry(held.tied).or_insert(place);
                sets.unite(place, with);
            }
        }
        (0..number(self.held.len()))
            .map(|place| sets.find(place))
            .collect()
    }

    /// In which component each open cluster goes on: where its settled ones are tied, else where its first one is.
    fn anchors(&self, components: &[u32], closed: &HashSet<u64>) -> HashMap<u64, u32> {
        let mut first: HashMap<u64, (i64, u32)> = HashMap::new();
        for (place, held) in (0u32..).zip(&self.held) {
            let tied = (held.tied != 0).then_some((held.tied, (i64::MIN, place)));
            let own = (held.cluster != 0).then_some((held.cluster, (held.arrived_at, place)));
            for (cluster, rank) in tied.into_iter().chain(own) {
                if !closed.contains(&cluster) {
                    let best = first.entry(cluster).or_insert(rank);
                    *best = rank.min(*best);
                }
            }
        }
        first
            .into_iter()
            .map(|(cluster, (_, place))| (cluster, components[place as usize]))
            .collect()
    }

    fn component(
        &self,
        places: Vec<u32>,
        standing: &[u64],
        closed: &HashSet<u64>,
        roots: &mut Roots<'_, Arc<str>>,
    ) -> Option<Component> {
        let is_open = |place: &u32| !closed.contains(&self.held[*place as usize].cluster);
        let all = places.iter().map(|&place| &self.held[place as usize]);
        let over = all
            .flat_map(|held| [held.cluster, held.tied])
            .filter(|c| closed.contains(c))
            .max();
        let places: Vec<u32> = places.into_iter().filter(is_open).collect();
        let cluster = standing.first().copied();
        if places.is_empty() {
            return None;
        }
        let mut changed = Vec::new();
        for &place in &places {
            let at = place as usize;
            roots.add(self.entity[at], 1, self.at[at], self.joins[at].via);
            if self.held[at].is_changed || Some(self.held[at].cluster) != cluster {
                changed.push(self.member(at));
            }
        }
        let (root, confidence) = roots.take();
        Some(Component {
            cluster,
            merged: standing.iter().skip(1).copied().collect(),
            continues: over.filter(|_| cluster.is_none()),
            changed,
            root: self.network.name(root).to_owned(),
            confidence,
            places,
        })
    }

    fn member(&self, at: usize) -> Member {
        let id = |place: u32| self.held[place as usize].event_id.to_string();
        let (held, joins) = (&self.held[at], self.joins[at]);
        Member {
            event_id: held.event_id.to_string(),
            was: Some(held.cluster).filter(|&c| c != 0),
            cause: joins.cause.map(|(place, link)| (id(place), link)),
            kin: joins.kin.map(id),
            place: number(at),
        }
    }

    /// Takes note that a plan has been carried out, each of its components having the cluster that stands beside it.
    pub fn apply(&mut self, plan: &[Component], clusters: &[u64]) {
        let mut became: HashMap<u64, u64> = HashMap::new();
        for (component, &cluster) in plan.iter().zip(clusters) {
            for &place in &component.places {
                let held = &mut self.held[place as usize];
                (held.cluster, held.is_changed) = (cluster, false);
            }
            became.extend(component.merged.iter().map(|&merged| (merged, cluster)));
        }
        if !became.is_empty() {
            for held in &mut self.held {
                let of = |cluster: u64| became.get(&cluster).copied().unwrap_or(cluster);
                (held.cluster, held.tied) = (of(held.cluster), of(held.tied));
            }
        }
    }

    /// Lets go of what can no longer be joined, as far as it is in a cluster.
    pub fn settle(&mut self, now: i64) {
        let floor = now - HOLD_SECONDS * SECOND;
        let too_many = self.held.len().saturating_sub(MOST);
        let goes: Vec<bool> = self
            .held
            .iter()
            .zip(&self.at)
            .enumerate()
            .map(|(place, (held, &at))| {
                held.cluster != 0
                    && !held.is_changed
                    && (place < too_many || (at < floor && held.arrived_at < floor))
            })
            .collect();
        if !goes.contains(&true) {
            return;
        }
        for place in 0..self.held.len() {
            let joins = self.joins[place];
            for other in joins
                .cause
                .map(|(place, _)| place)
                .into_iter()
                .chain(joins.kin)
            {
                let other = other as usize;
                match (goes[place], goes[other]) {
                    (false, true) => self.held[place].tied = self.held[other].cluster,
                    (true, false) => self.held[other].tied = self.held[place].cluster,
                    _ => {}
                }
            }
            // What it was tied to goes on through those that it is linked to; they are in the same cluster.
        }
        let mut places = Vec::with_capacity(goes.len());
        let mut next = 0u32;
        for &goes in &goes {
            places.push((!goes).then_some(next));
            next += u32::from(!goes);
        }
        self.renumber(|place| places[place as usize]);
        let mut stays = goes.iter().map(|goes| !goes);
        self.at.retain(|_| stays.next().unwrap_or(true));
        for list in [&mut self.entity, &mut self.kind] {
            let mut stays = goes.iter().map(|goes| !goes);
            list.retain(|_| stays.next().unwrap_or(true));
        }
        let mut stays = goes.iter().map(|goes| !goes);
        self.held.retain(|_| stays.next().unwrap_or(true));
        let mut stays = goes.iter().map(|goes| !goes);
        self.joins.retain(|_| stays.next().unwrap_or(true));
        self.forget_names();
    }

    /// Names that nothing has any more would pile up.
    fn forget_names(&mut self) {
        if self.network.len() + self.kinds.len() < 4 * self.held.len() + 10_000 {
            return;
        }
        let (mut network, mut kinds) = (Network::default(), Names::default());
        for (entity, kind) in self.entity.iter_mut().zip(&mut self.kind) {
            *entity = network.number(self.network.name(*entity));
            *kind = kinds.number(self.kinds.name(*kind));
        }
        network.learn(&self.topology);
        // A silent parent is known by its number; none is left that was found before.
        for joins in &mut self.joins {
            joins.via = None;
        }
        (self.network, self.kinds) = (network, kinds);
    }

    /// The clusters that something held is in.
    pub fn clusters(&self) -> impl Iterator<Item = u64> {
        let all = self.held.iter().flat_map(|held| [held.cluster, held.tied]);
        all.filter(|&c| c != 0)
    }
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
