//! What holds on any input.

use proptest::prelude::*;
use tidings_core::clock::Timestamp;

use super::super::{Occurrence, Rules, WINDOW_SECONDS, correlate};
use super::partition;
use crate::config::TypeRule;
use crate::simulate::{Flaws, Load, run};
use crate::topology::Topology;

/// A few entities in a small tree and a few outside of it, close together in time.
fn occurrences() -> impl Strategy<Value = Vec<Occurrence>> {
    let one = (0..14u8, 0..3u8, 0..2_000_000i64, 0..1_000_000_000u64);
    prop::collection::vec(one, 0..120).prop_map(|all| {
        let occurrence =
            |(n, (entity, kind, millis, id)): (usize, (u8, u8, i64, u64))| Occurrence {
                event_id: format!("{id}-{n}"),
                entity_id: format!("e{entity}"),
                alarm_type: format!("t{kind}"),
                raised_at: Timestamp::from_micros(1_790_000_000_000_000 + millis / 200 * 200_000),
            };
        all.into_iter().enumerate().map(occurrence).collect()
    })
}

fn topology() -> Topology {
    let mut topology = Topology::default();
    for entity in 1..10 {
        topology.set(
            &format!("e{entity}"),
            vec![format!("e{}", (entity - 1) / 3)],
        );
    }
    topology
}

fn rules() -> impl Strategy<Value = Rules> {
    prop::sample::select(vec![
        TypeRule::UnknownTopology,
        TypeRule::Always,
        TypeRule::Never,
    ])
    .prop_map(|type_rule| Rules { type_rule })
}

proptest! {
    #[test]
    fn the_order_of_the_input_changes_nothing(
        (of, mixed) in occurrences().prop_flat_map(|of| (Just(of.clone()), Just(of).prop_shuffle())),
        rules in rules(),
    ) {
        let (a, b) = (correlate(&of, &topology(), &rules), correlate(&mixed, &topology(), &rules));
        prop_assert_eq!(partition(&of, &a), partition(&mixed, &b));
        let facts = |clusters: &[super::super::Cluster]| -> Vec<_> {
            clusters.iter().map(|c| (c.root.clone(), c.confidence.to_bits())).collect()
        };
        prop_assert_eq!(facts(&a), facts(&b));
    }

    #[test]
    fn a_cluster_is_what_its_edges_hold_together(of in occurrences(), rules in rules()) {
        let clusters = correlate(&of, &topology(), &rules);
        let members: usize = clusters.iter().map(|c| c.members.len()).sum();
        prop_assert_eq!(members, of.len());
        for cluster in &clusters {
            prop_assert_eq!(cluster.edges.len() + 1, cluster.members.len());
            let mut reached = vec![cluster.members[0]];
            while let Some(next) = cluster.edges.iter().find_map(|e| {
                match (reached.contains(&e.from), reached.contains(&e.to)) {
                    (true, false) => Some(e.to),
                    (false, true) => Some(e.from),
                    _ => None,
                }
            }) {
                reached.push(next);
            }
            prop_assert_eq!(reached.len(), cluster.members.len());
            prop_assert!(cluster.edges.iter().all(|e| e.seconds.abs() <= WINDOW_SECONDS as f64));
        }
    }
}

#[test]
fn alarms_that_come_in_another_order_make_the_same_clusters() {
    let start = Timestamp::from_secs(1_790_000_000);
    let late = Flaws {
        late: 0.2,
        ..Flaws::default()
    };
    let run = run(5, Load::Storm, late, start);
    let topology = run.topology();
    let arrived: Vec<Occurrence> = run.alarms.iter().map(|a| a.occurrence.clone()).collect();
    let mut sorted = arrived.clone();
    sorted.sort_by_key(|o| o.raised_at);
    let rules = Rules::default();
    assert_eq!(
        partition(&arrived, &correlate(&arrived, &topology, &rules)),
        partition(&sorted, &correlate(&sorted, &topology, &rules)),
    );
}
