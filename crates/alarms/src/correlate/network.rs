//! Entities as numbers, and what each depends on.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

use super::delay::HOPS;
use crate::topology::Topology;

/// What is up an entity's chain is looked at in this number, nearest first: the harm of more is time alone.
const MAX_UP: usize = 32;
/// Children that are looked at for a new fault of their parent: the first by name, so that all choose the same.
pub(super) const CHILDREN: usize = 32;

/// Names that have been seen, numbered as they came. Nothing may depend on the order of the numbers.
///
/// The index holds numbers and a part of each hash, and not the names: of a million, it still fits the cache.
#[derive(Debug)]
pub(super) struct Names<K> {
    /// Seeded, since names come from outside; quicker than the standard one, which was a third of all time.
    hasher: foldhash::fast::RandomState,
    /// A power of two of them, at most three quarters taken; none at first.
    slots: Vec<Slot>,
    names: Vec<K>,
}

/// Where a name may be found.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    hash: u32,
    /// One more than the name's number; 0 where there is none.
    taken: u32,
}

impl<K> Default for Names<K> {
    fn default() -> Self {
        Self {
            hasher: foldhash::fast::RandomState::default(),
            slots: Vec::new(),
            names: Vec::new(),
        }
    }
}

impl<K: Clone + Eq + Hash + Borrow<str>> Names<K> {
    /// Makes room for so many more.
    pub(super) fn reserve(&mut self, names: usize) {
        let wanted = self.names.len() + names;
        self.names.reserve(names);
        if wanted * 4 > self.slots.len() * 3 {
            self.grow((wanted * 4 / 3 + 1).next_power_of_two());
        }
    }

    pub(super) fn number<'a>(&mut self, name: &'a str) -> u32
    where
        K: From<&'a str>,
    {
        if (self.names.len() + 1) * 4 > self.slots.len() * 3 {
            self.grow((self.slots.len() * 2).max(16));
        }
        let hash = (self.hasher.hash_one(name) >> 32) as u32;
        let is_it = |slot: Slot| slot.hash == hash && self.name(slot.taken - 1).borrow() == name;
        let at = find(&self.slots, hash, is_it);
        if self.slots[at].taken == 0 {
            self.names.push(K::from(name));
            let taken = length(&self.names);
            self.slots[at] = Slot { hash, taken };
        }
        self.slots[at].taken - 1
    }

    fn grow(&mut self, slots: usize) {
        let old = std::mem::replace(&mut self.slots, vec![Slot::default(); slots]);
        for slot in old.into_iter().filter(|slot| slot.taken != 0) {
            let at = find(&self.slots, slot.hash, |_| false);
            self.slots[at] = slot;
        }
    }

    pub(super) fn name(&self, number: u32) -> &K {
        &self.names[number as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }
}

/// The slot of what has this hash and is it, or the free one where it belongs.
fn find(slots: &[Slot], hash: u32, is_it: impl Fn(Slot) -> bool) -> usize {
    let mask = slots.len() - 1;
    let mut at = hash as usize & mask;
    while slots[at].taken != 0 && !is_it(slots[at]) {
        at = (at + 1) & mask;
    }
    at
}

/// The entities of the occurrences at hand, and those up their chains.
#[derive(Debug)]
pub(super) struct Network<K> {
    names: Names<K>,
    /// By entity: where its chain begins in `up`; one more at the end.
    starts: Vec<u32>,
    /// What is up the chain, nearest first, and how many hops.
    up: Vec<(u32, u8)>,
    /// Entities one hop below, parent by parent; a parent's are found by search.
    down: Vec<(u32, u32)>,
    /// By entity with more than [`CHILDREN`]: the last one that is looked at.
    last_child: HashMap<u32, K, foldhash::fast::RandomState>,
    is_known: Vec<bool>,
    /// How many children each has in the topology.
    fan: Vec<u32>,
    /// Entities of the whole topology.
    pub(super) size: usize,
}

impl<K> Default for Network<K> {
    fn default() -> Self {
        Self {
            names: Names::default(),
            starts: Vec::new(),
            up: Vec::new(),
            down: Vec::new(),
            last_child: HashMap::default(),
            is_known: Vec::new(),
            fan: Vec::new(),
            size: 0,
        }
    }
}

impl<K: Clone + Eq + Hash + Borrow<str>> Network<K> {
    /// The number of an entity; what is up its chain is known after [`Network::learn`].
    pub(super) fn number<'a>(&mut self, name: &'a str) -> u32
    where
        K: From<&'a str>,
    {
        self.names.number(name)
    }

    /// Makes room for so many entities.
    pub(super) fn reserve(&mut self, entities: usize) {
        self.names.reserve(entities);
    }

    /// Looks up the chains of the entities that are new since the last time.
    pub(super) fn learn<'a>(&mut self, topology: &'a Topology)
    where
        K: From<&'a str>,
    {
        let mut parents: Vec<Option<Vec<u32>>> = Vec::new();
        self.size = topology.len();
        self.starts.truncate(self.is_known.len());
        let mut entity = self.is_known.len();
        // Those that are up a chain come in on the way; they have one of their own.
        while entity < self.names.len() {
            self.starts.push(length(&self.up));
            let name = self.names.name(length(&self.is_known)).borrow();
            let (is_known, children) = (topology.knows(name), topology.children(name));
            self.fan.push(length(children));
            if let Some(last) = last_child(children) {
                self.last_child
                    .insert(length(&self.is_known), K::from(last));
            }
            self.is_known.push(is_known);
            if is_known {
                self.climb(topology, &mut parents, entity);
            }
            entity += 1;
        }
        self.starts.push(length(&self.up));
        self.look_down();
    }

    /// Finds again who is one hop below.
    fn look_down(&mut self) {
        self.down.clear();
        for entity in 0..length(&self.is_known) {
            let own =
                self.starts[entity as usize] as usize..self.starts[entity as usize + 1] as usize;
            let near = self.up[own].iter().take_while(|&&(_, hops)| hops == 1);
            for &(parent, _) in near {
                let last = self.last_child.get(&parent);
                if last.is_none_or(|last| self.name(entity) <= last.borrow()) {
                    self.down.push((parent, entity));
                }
            }
        }
        self.down.sort_unstable();
    }

    /// Breadth first, so that each is met on its shortest way.
    fn climb<'a>(
        &mut self,
        topology: &'a Topology,
        parents: &mut Vec<Option<Vec<u32>>>,
        entity: usize,
    ) where
        K: From<&'a str>,
    {
        let begin = self.up.len();
        let own = u32::try_from(entity).unwrap_or(u32::MAX);
        let (mut next, mut at, mut hops) = (begin, own, 1u8);
        loop {
            if parents.len() < self.names.len() {
                parents.resize(self.names.len(), None);
            }
            let known = parents[at as usize].take().unwrap_or_else(|| {
                let name: &str = self.names.names[at as usize].borrow();
                let of = topology.parents(name);
                of.iter().map(|p| self.names.number(p)).collect()
            });
            for &parent in &known {
                let is_new = parent != own && self.up[begin..].iter().all(|&(e, _)| e != parent);
                if is_new && self.up.len() - begin < MAX_UP {
                    self.up.push((parent, hops));
                }
            }
            parents[at as usize] = Some(known);
            let Some(&(up, so_far)) = self.up.get(next) else {
                return;
            };
            if usize::from(so_far) >= HOPS {
                return;
            }
            (next, at, hops) = (next + 1, up, so_far + 1);
        }
    }

    /// What is up an entity's chain, nearest first, and how many hops.
    pub(super) fn up(&self, entity: u32) -> &[(u32, u8)] {
        let entity = entity as usize;
        &self.up[self.starts[entity] as usize..self.starts[entity + 1] as usize]
    }

    /// The entities at hand that are one hop below, of the first [`CHILDREN`] that the topology has there.
    pub(super) fn down(&self, entity: u32) -> impl Iterator<Item = u32> {
        let first = self.down.partition_point(|&(parent, _)| parent < entity);
        let down = self.down[first..].iter();
        down.take_while(move |&&(parent, _)| parent == entity)
            .map(|&(_, child)| child)
    }

    /// Whether any entity at hand has a relation.
    pub(super) fn knows_any(&self) -> bool {
        self.is_known.contains(&true)
    }

    /// Whether an entity has a relation in either direction.
    pub(super) fn is_known(&self, entity: u32) -> bool {
        self.is_known[entity as usize]
    }

    /// How many children an entity has in the topology.
    pub(super) fn fan(&self, entity: u32) -> usize {
        self.fan[entity as usize] as usize
    }

    /// An entity's name.
    pub(super) fn name(&self, entity: u32) -> &str {
        self.names.name(entity).borrow()
    }

    /// Numbers that have been given.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }
}

/// The last by name of the children that are looked at, where there are more.
fn last_child(children: &[String]) -> Option<&str> {
    if children.len() <= CHILDREN {
        return None;
    }
    let mut names: Vec<&str> = children.iter().map(String::as_str).collect();
    Some(*names.select_nth_unstable(CHILDREN - 1).1)
}

fn length<T>(of: &[T]) -> u32 {
    u32::try_from(of.len()).unwrap_or(u32::MAX)
}
