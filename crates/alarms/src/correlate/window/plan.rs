//! What has to be changed so that the clusters are what the links make, and the note that it was.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::super::group::{Roots, Sets};
use super::{Component, Member, Window, number};

/// By numbers that are given here: no stranger can choose them.
type NumberMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

impl Window {
    /// What has to be changed so that each cluster is what hangs together. Those that are `closed` change no more: what
    /// would join them makes a cluster that goes on from them.
    #[must_use]
    pub fn plan(&self, closed: &HashSet<u64>) -> Vec<Component> {
        let components = self.components();
        let anchors = self.anchors(&components, closed);
        // By component, the open clusters that stand there, and the first of them.
        let mut standing: NumberMap<u32, Vec<u64>> = NumberMap::default();
        let mut stays = vec![0; components.len()];
        for (&cluster, &component) in &anchors {
            standing.entry(component).or_default().push(cluster);
            let first = &mut stays[component as usize];
            if *first == 0 || cluster < *first {
                *first = cluster;
            }
        }
        let mut touched = vec![false; components.len()];
        for (held, &component) in self.held.iter().zip(&components) {
            let is_in_place = !held.is_changed && stays[component as usize] == held.cluster;
            if !is_in_place && !closed.contains(&held.cluster) {
                touched[component as usize] = true;
                if let Some(&anchor) = anchors.get(&held.cluster) {
                    touched[anchor as usize] = true;
                }
            }
        }
        let mut places: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (place, &component) in (0u32..).zip(&components) {
            if touched[component as usize] {
                places.entry(component).or_default().push(place);
            }
        }
        let mut roots = Roots::new(&self.network);
        let changes = places.into_iter().filter_map(|(component, places)| {
            let mut standing = standing.remove(&component).unwrap_or_default();
            standing.sort_unstable();
            self.component(places, &standing, closed, &mut roots)
        });
        changes.collect()
    }

    /// By place, the first place of what it hangs together with.
    fn components(&self) -> Vec<u32> {
        let mut sets = Sets::new(self.held.len());
        // By cluster, the first that is settled in it: the links between them may be forgotten.
        let mut settled: NumberMap<u64, u32> = NumberMap::default();
        for (place, (joins, held)) in (0u32..).zip(self.joins.iter().zip(&self.held)) {
            for other in joins.others() {
                sets.unite(place, other);
            }
            if held.is_settled {
                let with = *settled.entry(held.cluster).or_insert(place);
                sets.unite(place, with);
            }
        }
        (0..number(self.held.len()))
            .map(|place| sets.find(place))
            .collect()
    }

    /// In which component each open cluster goes on: where its settled ones are, else where its first one is.
    fn anchors(&self, components: &[u32], closed: &HashSet<u64>) -> NumberMap<u64, u32> {
        let mut first: NumberMap<u64, (bool, i64, u32)> = NumberMap::default();
        for (place, held) in (0u32..).zip(&self.held) {
            if held.cluster != 0 && !closed.contains(&held.cluster) {
                let rank = (!held.is_settled, held.arrived_at, place);
                let best = first.entry(held.cluster).or_insert(rank);
                *best = rank.min(*best);
            }
        }
        first
            .into_iter()
            .map(|(cluster, (_, _, place))| (cluster, components[place as usize]))
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
            .map(|held| held.cluster)
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
            let held = &self.held[at];
            // What is settled goes with its whole cluster, or stays.
            if held.is_changed || (Some(held.cluster) != cluster && !held.is_settled) {
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
        let mut became: NumberMap<u64, u64> = NumberMap::default();
        for (component, &cluster) in plan.iter().zip(clusters) {
            for &place in &component.places {
                let held = &mut self.held[place as usize];
                (held.cluster, held.is_changed) = (cluster, false);
            }
            became.extend(component.merged.iter().map(|&merged| (merged, cluster)));
        }
        if !became.is_empty() {
            for held in &mut self.held {
                held.cluster = became.get(&held.cluster).copied().unwrap_or(held.cluster);
            }
        }
    }
}
