//! Occurrence by occurrence, the partition is the batch's.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use proptest::prelude::*;
use tidings_core::clock::Timestamp;

use super::super::{
    Arrival, Component, HOLD_SECONDS, MEMORY_SECONDS, Occurrence, Rules, SECOND, Window, correlate,
};
use super::{partition, raised, site};
use crate::simulate::{Flaws, Load, run};
use crate::topology::Topology;

const START: i64 = 1_790_000_000;

/// A window and what a store would know.
struct Stream {
    topology: Arc<Topology>,
    window: Window,
    next: u64,
    /// By event, as it came in, with its cluster.
    rows: HashMap<String, Arrival>,
    merged: HashMap<u64, u64>,
    continues: HashMap<u64, u64>,
}

impl Stream {
    fn new(topology: Topology) -> Self {
        let topology = Arc::new(topology);
        Self {
            window: Window::new(topology.clone(), Rules::default()),
            topology,
            next: 0,
            rows: HashMap::new(),
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
        let arrivals: Vec<Arrival> = occurrences.iter().map(arrival).collect();
        let rows = arrivals.iter();
        self.rows
            .extend(rows.map(|a| (a.occurrence.event_id.clone(), a.clone())));
        self.window.add(arrivals);
        let plan = self.window.plan(closed);
        let clusters: Vec<u64> = plan.iter().map(|component| self.store(component)).collect();
        self.window.apply(&plan, &clusters);
        assert!(
            self.window.plan(closed).is_empty(),
            "a plan that was carried out leaves nothing to do"
        );
        self.window.settle(now);
        plan
    }

    fn store(&mut self, component: &Component) -> u64 {
        let cluster = component.cluster.unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        for member in &component.changed {
            self.rows.get_mut(&member.event_id).unwrap().cluster = Some(cluster);
        }
        for &merged in &component.merged {
            self.merged.insert(merged, cluster);
            let of = self.rows.values_mut();
            of.filter(|row| row.cluster == Some(merged))
                .for_each(|row| row.cluster = Some(cluster));
        }
        if let Some(over) = component.continues {
            self.continues.insert(cluster, over);
        }
        cluster
    }

    /// As after a start: what is known is in the rows.
    fn restart(&mut self, now: i64) {
        let since = now - MEMORY_SECONDS * SECOND;
        let rows = self.rows.values().filter(|row| row.arrived_at >= since);
        let rows = rows.cloned().collect();
        self.window = Window::new(self.topology.clone(), Rules::default());
        self.window.restore(rows, now);
        assert!(self.window.plan(&HashSet::new()).is_empty());
    }

    fn partition(&self) -> Vec<Vec<String>> {
        let mut parts: HashMap<u64, Vec<String>> = HashMap::new();
        for (id, row) in &self.rows {
            let cluster = row.cluster.unwrap();
            parts.entry(cluster).or_default().push(id.clone());
        }
        let mut parts: Vec<_> = parts.into_values().collect();
        parts.iter_mut().for_each(|p| p.sort_unstable());
        parts.sort_unstable();
        parts
    }
}

/// A storm of which a part comes in up to `late` seconds late, in the order in which it comes in.
fn late_storm(seed: u64, late: i64) -> (Topology, Vec<(i64, Occurrence)>) {
    let run = run(
        seed,
        Load::Storm,
        Flaws::default(),
        Timestamp::from_secs(START),
    );
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut arrive = |o: Occurrence| {
        let is_late = rng.u8(..5) == 0;
        let late = rng.i64(0..=if is_late { late * SECOND } else { SECOND / 2 });
        (o.raised_at.as_micros() + late, o)
    };
    let topology = run.topology();
    let alarms = run.alarms.into_iter();
    let mut arrived: Vec<_> = alarms.map(|a| arrive(a.occurrence)).collect();
    arrived.sort_unstable_by(|a, b| (a.0, &a.1.event_id).cmp(&(b.0, &b.1.event_id)));
    (topology, arrived)
}

#[test]
fn what_comes_ten_minutes_late_and_over_restarts_is_what_the_batch_makes() {
    for seed in 0..8 {
        let (topology, arrived) = late_storm(seed, 600);
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut stream = Stream::new(topology.clone());
        let mut rest = arrived.as_slice();
        while !rest.is_empty() {
            let (some, others) = rest.split_at(rng.usize(1..=60).min(rest.len()));
            rest = others;
            let now = some[some.len() - 1].0;
            let some: Vec<_> = some.iter().map(|(_, o)| o.clone()).collect();
            stream.feed(&some, now, &HashSet::new());
            if rng.u8(..4) == 0 {
                stream.restart(now);
            }
        }
        let all: Vec<_> = arrived.into_iter().map(|(_, o)| o).collect();
        let batch = correlate(&all, &topology, &Rules::default());
        assert_eq!(stream.partition(), partition(&all, &batch), "seed {seed}");
    }
}

/// A few entities of a tree with a wide parent, mostly within the window of each other.
fn few() -> impl Strategy<Value = Vec<Occurrence>> {
    let second = prop_oneof![0..60i64, 240..330i64, 0..700i64];
    let one = (0..60u8, second, 0..4u8);
    prop::collection::vec(one, 1..90).prop_map(|all| {
        let all = all.into_iter().enumerate();
        all.map(|(n, (entity, second, quarter))| Occurrence {
            event_id: format!("{:02}-{n}", n * 37 % 90),
            entity_id: format!("e{}", entity.saturating_sub(10)),
            alarm_type: "t".into(),
            raised_at: Timestamp::from_micros(
                (START + second) * SECOND + i64::from(quarter) * SECOND / 4,
            ),
        })
        .collect()
    })
}

/// e0 with 40 children, of which the first has 8.
fn wide() -> Topology {
    let mut topology = Topology::default();
    for entity in 1..49 {
        let parent = if entity > 40 { "e1" } else { "e0" };
        topology.set(&format!("e{entity}"), vec![parent.into()]);
    }
    topology
}

proptest! {
    #[test]
    fn in_any_order_and_any_pieces_it_is_the_batch(
        (of, mixed) in few().prop_flat_map(|of| (Just(of.clone()), Just(of).prop_shuffle())),
        step in 1..20usize,
    ) {
        let mut stream = Stream::new(wide());
        for some in mixed.chunks(step) {
            stream.feed(some, START * SECOND, &HashSet::new());
        }
        let batch = correlate(&of, &wide(), &Rules::default());
        prop_assert_eq!(stream.partition(), partition(&of, &batch));
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
        let run = run(11, load, flaws, Timestamp::from_secs(START));
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
        Timestamp::from_secs(START),
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

/// Ten children of a wide parent raise again when it does: too few of those that are looked at, or enough, but the same in
/// whatever order they came to be known.
#[test]
fn the_same_children_of_a_wide_parent_are_looked_at_however_they_come() {
    let children: Vec<String> = (10..50).map(|n| format!("c{n}")).collect();
    let names: Vec<&str> = children.iter().map(String::as_str).collect();
    for again in [&names[..10], &names[30..]] {
        let mut all = vec![raised("site", "t", 0), raised("site", "t", 100)];
        all.extend(names.iter().map(|child| raised(child, "t", 2)));
        all.extend(again.iter().map(|child| raised(child, "t", 102)));
        let batch = correlate(&all, &site(&names), &Rules::default());
        for is_last_first in [false, true] {
            let mut arrived = all.clone();
            if is_last_first {
                arrived.reverse();
            }
            let mut stream = Stream::new(site(&names));
            for some in arrived.chunks(10) {
                stream.feed(some, START * SECOND, &HashSet::new());
            }
            assert_eq!(stream.partition(), partition(&all, &batch));
        }
    }
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
        assert!(stream.window.len() < 8);
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
