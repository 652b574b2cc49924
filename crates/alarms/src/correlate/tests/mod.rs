//! What correlation must do on shapes that are known, on any shape, and on the generator.

mod accuracy;
mod golden;
mod laws;
mod pieces;
mod stream;

use tidings_core::clock::Timestamp;

use super::{Cluster, Occurrence, Rules, correlate};
use crate::topology::Topology;

/// An occurrence at a second, with an id that says nothing of its place.
fn raised(entity: &str, kind: &str, second: i64) -> Occurrence {
    Occurrence {
        event_id: format!("{entity}|{kind}|{second}"),
        entity_id: entity.into(),
        alarm_type: kind.into(),
        raised_at: Timestamp::from_secs(1_790_000_000 + second),
    }
}

fn plain(occurrences: &[Occurrence]) -> Vec<Cluster> {
    correlate(occurrences, &Topology::default(), &Rules::default())
}

/// How many occurrences each cluster has, most first.
fn sizes(clusters: &[Cluster]) -> Vec<usize> {
    let mut sizes: Vec<usize> = clusters.iter().map(|c| c.members.len()).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    sizes
}

/// The partition as lists of ids, in an order of its own.
fn partition(occurrences: &[Occurrence], clusters: &[Cluster]) -> Vec<Vec<String>> {
    let mut parts: Vec<Vec<String>> = clusters
        .iter()
        .map(|c| {
            let ids = c
                .members
                .iter()
                .map(|&i| occurrences[i as usize].event_id.clone());
            let mut ids: Vec<String> = ids.collect();
            ids.sort_unstable();
            ids
        })
        .collect();
    parts.sort_unstable();
    parts
}

fn site(cells: &[&str]) -> Topology {
    let mut topology = Topology::default();
    for cell in cells {
        topology.set(cell, vec!["site".into()]);
    }
    topology
}
