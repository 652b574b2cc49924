//! Shapes whose clusters are known.

use super::super::{Link, Rules, correlate};
use super::{plain, raised, site, sizes};
use crate::config::TypeRule;
use crate::topology::Topology;

#[test]
fn one_entity_chains_while_gaps_are_at_most_300_seconds() {
    let at = |seconds: &[i64]| -> Vec<_> { seconds.iter().map(|&s| raised("e", "t", s)).collect() };
    assert_eq!(sizes(&plain(&at(&[0, 300, 600]))), [3]);
    assert_eq!(sizes(&plain(&at(&[0, 301]))), [1, 1]);
    assert_eq!(
        sizes(&plain(&[raised("e", "a", 0), raised("e", "b", 300)])),
        [2]
    );
}

#[test]
fn the_same_type_joins_unknown_entities_in_any_order() {
    let mut of = [("a", 0), ("b", 300), ("c", 600)].map(|(e, s)| raised(e, "t", s));
    assert_eq!(sizes(&plain(&of)), [3]);
    of.swap(1, 2);
    assert_eq!(sizes(&plain(&of)), [3]);
    assert_eq!(
        sizes(&plain(&[raised("a", "t", 0), raised("b", "t", 301)])),
        [1, 1]
    );
    assert_eq!(
        sizes(&plain(&[raised("a", "t", 0), raised("b", "u", 0)])),
        [1, 1]
    );
}

#[test]
fn five_thousand_on_a_thousand_entities_hang_together() {
    // The original's own test: it made 3000 and 2000 of it, because its merging was not transitive.
    let of: Vec<_> = (0..5_000)
        .map(|i| {
            let (entity, kind) = (format!("e{}", i % 1_000), format!("t{}", i / 1_000));
            raised(&entity, &kind, i * 120 % 600)
        })
        .collect();
    assert_eq!(sizes(&plain(&of)), [5_000]);
}

#[test]
fn five_thousand_on_a_hundred_entities_of_five_types_are_five() {
    let of: Vec<_> = (0..5_000)
        .map(|i| raised(&format!("e{}", i % 100), &format!("t{}", i % 5), i % 300))
        .collect();
    assert_eq!(sizes(&plain(&of)), [1_000; 5]);
}

#[test]
fn isolated_ones_bunches_and_a_large_one_each_stay_what_they_are() {
    let mut of: Vec<_> = (0..1_500)
        .map(|i| raised(&format!("i{i}"), "alone", i * 301))
        .collect();
    of.extend((0..2_500).map(|i| {
        raised(
            &format!("b{}", i / 5),
            &format!("bunch{}", i / 5),
            i % 5 * 60,
        )
    }));
    of.extend((0..1_000).map(|i| raised(&format!("l{i}"), "large", i % 300)));
    let sizes = sizes(&plain(&of));
    assert_eq!(sizes.iter().sum::<usize>(), of.len());
    assert_eq!(
        (sizes[0], sizes[1], sizes[500], sizes[501]),
        (1_000, 5, 5, 1)
    );
    assert_eq!(sizes.len(), 1 + 500 + 1_500);
}

#[test]
fn a_hot_type_that_is_far_apart_is_as_many_clusters() {
    let of: Vec<_> = (0..5_000)
        .map(|i| raised(&format!("e{i}"), "t", i * 601))
        .collect();
    assert_eq!(sizes(&plain(&of)).len(), 5_000);
}

#[test]
fn effects_join_their_cause_and_the_cause_is_the_root() {
    let topology = site(&["c1", "c2", "c3"]);
    // The second cell's clock is behind.
    let of = [
        raised("c1", "down", 3),
        raised("site", "power", 0),
        raised("c2", "down", -2),
        raised("c3", "slow", 9),
    ];
    let clusters = correlate(&of, &topology, &Rules::default());
    assert_eq!(sizes(&clusters), [4]);
    assert_eq!(
        (clusters[0].root.as_str(), clusters[0].confidence),
        ("site", 1.0)
    );
    assert_eq!(clusters[0].members, [2, 1, 0, 3]);
    assert_eq!(clusters[0].edges.len(), 3);
    for edge in &clusters[0].edges {
        assert_eq!((edge.from, edge.link), (1, Link::Dependency));
    }
    let seconds: Vec<f64> = clusters[0].edges.iter().map(|e| e.seconds).collect();
    assert_eq!(seconds, [-2.0, 3.0, 9.0]);
}

#[test]
fn a_slow_effect_joins_in_a_quiet_network_and_none_after_the_window() {
    let topology = site(&["c1"]);
    for (second, clusters) in [(60, 1), (300, 1), (301, 2)] {
        let of = [raised("site", "power", 0), raised("c1", "down", second)];
        assert_eq!(
            correlate(&of, &topology, &Rules::default()).len(),
            clusters,
            "{second} s"
        );
        let of = [raised("c1", "down", 0), raised("c1", "down", second)];
        assert_eq!(
            correlate(&of, &topology, &Rules::default()).len(),
            clusters,
            "again {second} s"
        );
    }
}

#[test]
fn siblings_join_through_a_silent_parent_and_it_is_the_root() {
    let topology = site(&["c1", "c2", "c3"]);
    let of = [
        raised("c1", "a", 0),
        raised("c2", "b", 2),
        raised("c3", "c", 4),
    ];
    let clusters = correlate(&of, &topology, &Rules::default());
    assert_eq!(sizes(&clusters), [3]);
    assert_eq!(clusters[0].root, "site");
    assert!(
        clusters[0]
            .edges
            .iter()
            .all(|e| e.link == Link::SilentParent)
    );
    let two = correlate(
        &[of[0].clone(), raised("c2", "b", 200)],
        &topology,
        &Rules::default(),
    );
    assert_eq!(sizes(&two), [1, 1]);
}

#[test]
fn two_of_a_hundred_children_say_nothing_of_their_parent() {
    let names: Vec<String> = (0..100).map(|i| format!("c{i}")).collect();
    let topology = site(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let of = [raised("c1", "a", 0), raised("c2", "a", 2)];
    assert_eq!(sizes(&correlate(&of, &topology, &Rules::default())), [1, 1]);
}

#[test]
fn unrelated_entities_of_a_known_topology_stay_apart_unless_the_type_always_joins() {
    let mut topology = site(&["c1"]);
    topology.set("c9", vec!["far".into()]);
    let of = [
        raised("c1", "t", 0),
        raised("c9", "t", 1),
        raised("unknown", "t", 2),
    ];
    let by = |type_rule| sizes(&correlate(&of, &topology, &Rules { type_rule }));
    assert_eq!(by(TypeRule::UnknownTopology), [1, 1, 1]);
    assert_eq!(by(TypeRule::Always), [3]);
    assert_eq!(by(TypeRule::Never), [1, 1, 1]);
    let unknown = [raised("x", "t", 0), raised("y", "t", 1)];
    let never = Rules {
        type_rule: TypeRule::Never,
    };
    assert_eq!(sizes(&correlate(&unknown, &topology, &never)), [1, 1]);
}

#[test]
fn a_cycle_has_no_end_but_an_answer() {
    let mut topology = Topology::default();
    topology.set("a", vec!["b".into()]);
    topology.set("b", vec!["a".into(), "b".into()]);
    let of = [
        raised("a", "t", 0),
        raised("b", "t", 2),
        raised("b", "t", 3),
    ];
    assert_eq!(sizes(&correlate(&of, &topology, &Rules::default())), [3]);
}

#[test]
fn the_root_of_unknown_entities_is_the_most_frequent_then_the_earliest() {
    let of = [
        raised("b", "t", 0),
        raised("a", "t", 1),
        raised("a", "t", 2),
    ];
    assert_eq!(plain(&of)[0].root, "a");
    let of = [raised("b", "t", 0), raised("a", "t", 1)];
    assert_eq!(plain(&of)[0].root, "b");
    let of = [raised("b", "t", 0), raised("a", "t", 0)];
    assert_eq!(plain(&of)[0].root, "a");
    assert!(plain(&[]).is_empty());
}
