//! A plan that is carried out piece by piece comes to what it comes to at once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tidings_core::clock::Timestamp;

use super::super::{Arrival, Component, Occurrence, Rules, Window, correlate, pieces};
use super::{partition, raised, site};
use crate::simulate::{Flaws, Load, run};

/// A window whose plans are carried out in pieces, as the worker does it.
struct Stream {
    window: Window,
    next: u64,
    most: usize,
    of: HashMap<String, u64>,
}

impl Stream {
    fn feed(&mut self, occurrences: &[Occurrence], now: i64) {
        let arrival = |o: &Occurrence| Arrival {
            occurrence: o.clone(),
            arrived_at: now,
            cluster: None,
        };
        self.window.add(occurrences.iter().map(arrival).collect());
        let plan = self.window.plan(&HashSet::new());
        let members: usize = plan.iter().map(|c| c.changed.len()).sum();
        let mut begun = None;
        let mut became: HashMap<u64, u64> = HashMap::new();
        let mut carried = 0;
        for piece in pieces(plan, self.most) {
            let mut components = piece.components;
            if let Some(first) = components.first_mut().filter(|_| piece.goes_on) {
                first.cluster = first.cluster.or(begun);
            }
            for member in components.iter_mut().flat_map(|c| &mut c.changed) {
                let was = member.was.and_then(|was| became.get(&was).copied());
                member.was = was.or(member.was);
            }
            carried += components.iter().map(|c| c.changed.len()).sum::<usize>();
            let clusters: Vec<u64> = components.iter().map(|c| self.carry_out(c)).collect();
            self.window.apply(&components, &clusters);
            for (component, &cluster) in components.iter().zip(&clusters) {
                became.extend(component.merged.iter().map(|&merged| (merged, cluster)));
            }
            begun = clusters.last().copied();
        }
        assert_eq!(carried, members, "each member once");
        let rest = self.window.plan(&HashSet::new());
        assert!(rest.is_empty(), "nothing is left to do: {rest:?}");
        self.window.settle(now);
    }

    fn carry_out(&mut self, component: &Component) -> u64 {
        let cluster = component.cluster.unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        for member in &component.changed {
            assert_eq!(member.was, self.of.get(&member.event_id).copied());
        }
        let all = self.of.values_mut();
        all.filter(|c| component.merged.contains(c))
            .for_each(|c| *c = cluster);
        let changed = component.changed.iter();
        self.of
            .extend(changed.map(|m| (m.event_id.clone(), cluster)));
        cluster
    }

    fn partition(&self) -> Vec<Vec<String>> {
        let mut parts: HashMap<u64, Vec<String>> = HashMap::new();
        for (id, &cluster) in &self.of {
            parts.entry(cluster).or_default().push(id.clone());
        }
        let mut parts: Vec<_> = parts.into_values().collect();
        parts.iter_mut().for_each(|part| part.sort_unstable());
        parts.sort_unstable();
        parts
    }
}

#[test]
fn pieces_make_what_the_whole_makes() {
    let start = Timestamp::from_secs(1_790_000_000);
    let flaws = Flaws {
        late: 0.2,
        ..Flaws::default()
    };
    let run = run(21, Load::Storm, flaws, start);
    let all: Vec<_> = run.alarms.iter().map(|a| a.occurrence.clone()).collect();
    let batch = correlate(&all, &run.topology(), &Rules::default());
    for (step, most) in [(9, 1), (60, 5), (400, 16)] {
        let mut stream = Stream {
            window: Window::new(Arc::new(run.topology()), Rules::default()),
            next: 0,
            most,
            of: HashMap::new(),
        };
        for some in run.alarms.chunks(step) {
            let now = some[some.len() - 1].arrives_at.as_micros();
            let some: Vec<_> = some.iter().map(|a| a.occurrence.clone()).collect();
            stream.feed(&some, now);
        }
        assert_eq!(stream.partition(), partition(&all, &batch), "{step} {most}");
    }
}

#[test]
fn a_large_component_is_cut_and_small_ones_share_a_piece() {
    let large: Vec<_> = (0..25).map(|n| raised("site", "DOWN", n)).collect();
    let small = (0..3).map(|n| raised(&format!("lone-{n}"), &format!("T{n}"), 0));
    let all: Vec<_> = large.into_iter().chain(small).collect();
    let arrivals = all.into_iter().map(|occurrence| Arrival {
        arrived_at: occurrence.raised_at.as_micros(),
        occurrence,
        cluster: None,
    });
    let mut window = Window::new(Arc::new(site(&["cell"])), Rules::default());
    window.add(arrivals.collect());
    let cut = pieces(window.plan(&HashSet::new()), 10);
    let sizes: Vec<Vec<usize>> = cut
        .iter()
        .map(|piece| piece.components.iter().map(|c| c.changed.len()).collect())
        .collect();
    assert_eq!(sizes.concat().iter().sum::<usize>(), 28);
    assert!(sizes.concat().iter().all(|&size| size <= 10), "{sizes:?}");
    assert!(sizes.contains(&vec![1, 1]), "{sizes:?}");
    assert_eq!(cut.iter().filter(|piece| piece.goes_on).count(), 2);
    assert_eq!(
        pieces(Vec::new(), 10).len(),
        1,
        "the cursor moves also where nothing changed"
    );
}
