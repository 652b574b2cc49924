//! From links to clusters, and which entity each is probably rooted in.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::hash::Hash;

use super::Link;
use super::cause::Joins;
use super::delay::seconds;
use super::field::Field;
use super::network::Network;

/// Occurrences that are probably one fault.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Their places in the input, in the order of time.
    pub members: Vec<u32>,
    /// The entity that most probably is at fault.
    pub root: String,
    /// How much of the cluster the root explains, 0 to 1.
    pub confidence: f64,
    /// Why it is one: one edge less than there are members.
    pub edges: Vec<Edge>,
}

/// Why one occurrence is in another one's cluster.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Edge {
    /// The place in the input of the one that came first, or is the cause.
    pub from: u32,
    /// The place of the one that joined it.
    pub to: u32,
    /// Why.
    pub link: Link,
    /// Seconds from the one to the other; negative where the effect's clock was behind.
    pub seconds: f64,
}

/// Sets that are united.
#[derive(Debug)]
pub(super) struct Sets(Vec<u32>);

impl Sets {
    pub(super) fn new(count: usize) -> Self {
        Self((0..u32::try_from(count).unwrap_or(u32::MAX)).collect())
    }

    pub(super) fn find(&mut self, mut of: u32) -> u32 {
        while self.0[of as usize] != of {
            let up = self.0[self.0[of as usize] as usize];
            self.0[of as usize] = up;
            of = up;
        }
        of
    }

    /// Unites two sets; the earlier one stands for both. Says whether they were two.
    pub(super) fn unite(&mut self, a: u32, b: u32) -> bool {
        let (a, b) = (self.find(a), self.find(b));
        self.0[a.max(b) as usize] = a.min(b);
        a != b
    }
}

pub(super) fn clusters<K: Clone + Eq + Hash + Borrow<str>>(
    field: &Field<'_, K>,
    joins: &[Joins],
    network: &Network<K>,
    order: &[u32],
) -> Vec<Cluster> {
    let mut sets = Sets::new(order.len());
    let edge = |from: u32, to: u32, link: Link| Edge {
        from: order[from as usize],
        to: order[to as usize],
        link,
        seconds: seconds(field.at[to as usize] - field.at[from as usize]),
    };
    let mut edges: Vec<(u32, Edge)> = Vec::new();
    for (i, join) in (0u32..).zip(joins) {
        let kin = join.kin.map(|from| (from, Link::SameType));
        for (from, link) in join.cause.into_iter().chain(kin) {
            if sets.unite(from, i) {
                edges.push((i, edge(from, i, link)));
            }
        }
    }
    // By cluster, numbered as they begin.
    let count = u32::try_from(order.len()).unwrap_or(u32::MAX);
    let mut sizes = vec![0u32; order.len()];
    for i in 0..count {
        sizes[sets.find(i) as usize] += 1;
    }
    let mut number = vec![u32::MAX; order.len()];
    let mut clusters: Vec<Cluster> = Vec::new();
    for i in 0..count {
        let set = sets.find(i) as usize;
        if number[set] == u32::MAX {
            number[set] = u32::try_from(clusters.len()).unwrap_or(u32::MAX);
            clusters.push(Cluster {
                members: Vec::with_capacity(sizes[set] as usize),
                root: String::new(),
                confidence: 0.0,
                edges: Vec::new(),
            });
        }
        clusters[number[set] as usize].members.push(i);
    }
    for (i, edge) in edges {
        clusters[number[sets.find(i) as usize] as usize]
            .edges
            .push(edge);
    }
    let mut roots = Roots::new(network);
    for cluster in &mut clusters {
        for i in &mut cluster.members {
            let place = *i as usize;
            roots.add(field.entity[place], 1, field.at[place], joins[place].via);
            *i = order[place];
        }
        let (root, confidence) = roots.take();
        network.name(root).clone_into(&mut cluster.root);
        cluster.confidence = confidence;
    }
    clusters
}

/// Finds the root of one cluster after the other.
#[derive(Debug)]
pub(super) struct Roots<'a, K> {
    network: &'a Network<K>,
    /// By entity, where it is in `seen`.
    at: Vec<u32>,
    seen: Vec<Suspect>,
}

#[derive(Debug, Clone, Copy)]
struct Suspect {
    entity: u32,
    /// Occurrences of its own; a silent parent has none.
    count: u64,
    first: i64,
    /// Entities with occurrences that are itself or hang on it.
    explains: u32,
}

impl<'a, K: Clone + Eq + Hash + Borrow<str>> Roots<'a, K> {
    pub(super) fn new(network: &'a Network<K>) -> Self {
        Self {
            network,
            at: vec![u32::MAX; network.len()],
            seen: Vec::new(),
        }
    }

    /// Takes in occurrences of one entity, and the silent parent that they were joined through.
    pub(super) fn add(&mut self, entity: u32, count: u64, first: i64, via: Option<u32>) {
        let suspect = self.suspect(entity);
        suspect.count += count;
        suspect.first = suspect.first.min(first);
        if let Some(via) = via {
            self.suspect(via);
        }
    }

    fn suspect(&mut self, entity: u32) -> &mut Suspect {
        let at = &mut self.at[entity as usize];
        if *at == u32::MAX {
            *at = u32::try_from(self.seen.len()).unwrap_or(u32::MAX);
            self.seen.push(Suspect {
                entity,
                count: 0,
                first: i64::MAX,
                explains: 0,
            });
        }
        &mut self.seen[*at as usize]
    }

    /// The root of all that was added, and how much of it that explains, 0 to 1. What was added is forgotten.
    pub(super) fn take(&mut self) -> (u32, f64) {
        let mut alarmed = 0;
        for i in 0..self.seen.len() {
            let Suspect { entity, count, .. } = self.seen[i];
            if count == 0 {
                continue;
            }
            alarmed += 1;
            self.seen[i].explains += 1;
            for &(up, _) in self.network.up(entity) {
                if let Some(suspect) = self.seen.get_mut(self.at[up as usize] as usize) {
                    suspect.explains += 1;
                }
            }
        }
        let best = self.seen.iter().max_by(|a, b| self.compare(a, b)).copied();
        for suspect in self.seen.drain(..) {
            self.at[suspect.entity as usize] = u32::MAX;
        }
        best.map_or((0, 0.0), |best| {
            let part = f64::from(best.explains) / f64::from(alarmed.max(1));
            (best.entity, (part * 1000.0).round() / 1000.0)
        })
    }

    /// Which is the likelier root: what explains more; then what was heard of, more often, earlier; then by name.
    fn compare(&self, a: &Suspect, b: &Suspect) -> Ordering {
        let name = |s: &Suspect| self.network.name(s.entity);
        a.explains
            .cmp(&b.explains)
            .then(a.count.cmp(&b.count))
            .then(b.first.cmp(&a.first))
            .then_with(|| name(b).cmp(name(a)))
    }
}
