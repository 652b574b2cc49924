//! Occurrence by occurrence, the partition is the batch's.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tidings_core::clock::Timestamp;

use super::super::{Arrival, Component, HOLD_SECONDS, Occurrence, Rules, Window, correlate};
use super::{partition, raised, site};
use crate::simulate::{Flaws, Load, run};
use crate::topology::Topology;

/// A window and what a store would know.
struct Stream {
    window: Window,
    next: u64,
    of: HashMap<String, u64>,
    merged: HashMap<u64, u64>,
    continues: HashMap<u64, u64>,
}

impl Stream {
    fn new(topology: Topology) -> Self {
        Self {
            window: Window::new(Arc::new(topology), Rules::default()),
            next: 0,
            of: HashMap::new(),
            merged: HashMap::new(),
            continues: HashMap::new(),
        }
    }

    fn feed(
        &mut self,
        occurrences: &[Occurrence],
        now: i64,
        closed: &HashSet<u64>,
    ) -> Vec<Component> {
        let arrival = |o: &Occurrence| Arrival {
            occurrence: o.clone(),
            arrived_at: now,
            cluster: None,
        };
        self.window.add(occurrences.iter().map(arrival).collect());
        let plan = self.window.plan(closed);
        let mut clusters = Vec::new();
        for component in &plan {
            let cluster = component.cluster.unwrap_or_else(|| {
                self.next += 1;
                self.next
            });
            clusters.push(cluster);
            for &merged in &component.merged {
                self.merged.insert(merged, cluster);
                self.of
                    .values_mut()
                    .filter(|c| **c == merged)
                    .for_each(|c| *c = cluster);
            }
            if let Some(over) = component.continues {
                self.continues.insert(cluster, over);
            }
            self.of.extend(
                component
                    .changed
                    .iter()
                    .map(|m| (m.event_id.clone(), cluster)),
            );
        }
        self.window.apply(&plan, &clusters);
        assert!(
            self.window.plan(closed).is_empty(),
            "a plan that was carried out leaves nothing to do"
        );
        self.window.settle(now);
        plan
    }

    fn partition(&self) -> Vec<Vec<String>> {
        let mut parts: HashMap<u64, Vec<String>> = HashMap::new();
        for (id, &cluster) in &self.of {
            parts.entry(cluster).or_default().push(id.clone());
        }
        let mut parts: Vec<_> = parts.into_values().collect();
        parts.iter_mut().for_each(|p| p.sort_unstable());
        parts.sort_unstable();
        parts
    }
}

#[test]
fn the_stream_makes_what_the_batch_makes() {
    for (load, flaws, step) in [
        (
            Load::Storm,
            Flaws {
                late: 0.2,
                missing: 0.1,
                wrong: 0.0,
            },
            5,
        ),
        (Load::Storm, Flaws::default(), 37),
        (
            Load::Busy,
            Flaws {
                late: 0.05,
                ..Flaws::default()
            },
            3,
        ),
    ] {
        let run = run(11, load, flaws, Timestamp::from_secs(1_790_000_000));
        let mut stream = Stream::new(run.topology());
        for some in run.alarms.chunks(step) {
            let now = some[some.len() - 1].arrives_at.as_micros();
            let some: Vec<_> = some.iter().map(|a| a.occurrence.clone()).collect();
            stream.feed(&some, now, &HashSet::new());
        }
        let all: Vec<_> = run.alarms.iter().map(|a| a.occurrence.clone()).collect();
        let batch = correlate(&all, &run.topology(), &Rules::default());
        assert_eq!(
            stream.partition(),
            partition(&all, &batch),
            "{load:?} {flaws:?}"
        );
        assert!(stream.window.len() < all.len(), "what is old is let go");
    }
}

#[test]
fn what_comes_in_any_order_at_once_is_the_batch() {
    let run = run(
        12,
        Load::Storm,
        Flaws::default(),
        Timestamp::from_secs(1_790_000_000),
    );
    let mut all: Vec<_> = run.alarms.iter().map(|a| a.occurrence.clone()).collect();
    fastrand::Rng::with_seed(3).shuffle(&mut all);
    let mut stream = Stream::new(run.topology());
    let now = 1_800_000_000_000_000;
    for some in all.chunks(100) {
        stream.feed(some, now, &HashSet::new());
    }
    let batch = correlate(&all, &run.topology(), &Rules::default());
    assert_eq!(stream.partition(), partition(&all, &batch));
}

#[test]
fn one_every_four_minutes_for_ever_is_one_cluster_and_little_is_held() {
    let mut stream = Stream::new(Topology::default());
    for n in 0..200 {
        let o = raised("e", "t", n * 240);
        let plan = stream.feed(
            std::slice::from_ref(&o),
            o.raised_at.as_micros(),
            &HashSet::new(),
        );
        assert_eq!((plan.len(), plan[0].changed.len()), (1, 1));
        assert!(stream.window.len() < 6);
    }
    assert_eq!((stream.next, stream.partition().len()), (1, 1));
    const { assert!(HOLD_SECONDS > 600) };
}

#[test]
fn a_cause_that_comes_late_merges_and_the_oldest_id_stays() {
    let mut stream = Stream::new(site(&["c1", "c2", "c3", "c4"]));
    let none = HashSet::new();
    // Far enough apart to be no siblings of a silent parent.
    stream.feed(&[raised("c1", "t", 0)], 0, &none);
    stream.feed(&[raised("c2", "t", 31)], 0, &none);
    assert_eq!(stream.partition().len(), 2);
    let plan = stream.feed(&[raised("site", "t", 10)], 0, &none);
    if stream.partition().len() == 1 {
        assert_eq!(plan[0].merged, [2]);
        assert_eq!(stream.merged, HashMap::from([(2, 1)]));
    }
    let plan = stream.feed(
        &[raised("site", "t", -1), raised("site", "t", 30)],
        0,
        &none,
    );
    assert_eq!(stream.partition().len(), 1, "{plan:?}");
    assert_eq!(stream.merged, HashMap::from([(2, 1)]));
}

#[test]
fn a_closed_cluster_takes_nothing_more() {
    let mut stream = Stream::new(Topology::default());
    stream.feed(&[raised("e", "t", 0)], 0, &HashSet::new());
    let closed = HashSet::from([1]);
    let plan = stream.feed(&[raised("e", "t", 60)], 0, &closed);
    assert_eq!((plan[0].cluster, plan[0].continues), (None, Some(1)));
    let plan = stream.feed(&[raised("e", "t", 120)], 0, &closed);
    assert_eq!((plan[0].cluster, plan[0].continues), (Some(2), None));
    assert_eq!(stream.partition().len(), 2);
    assert_eq!(stream.continues, HashMap::from([(2, 1)]));
}
