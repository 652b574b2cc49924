//! The alarms of a flood: those of several simulated networks, under names of this measurement's own.

use std::ops::Range;
use std::time::Duration;

use serde_json::Value;
use tidings_alarms::simulate::{Alarm, Flaws, Node, Run, Scenario};
use tidings_core::clock::Timestamp;

/// Fewer alarms than a fault has on average, with the unrelated ones.
const LEAST_A_FAULT: usize = 8;

/// What will be raised.
#[derive(Debug)]
pub(super) struct Flood {
    prefix: String,
    networks: Vec<Vec<Node>>,
    /// In the order in which they come in; times are from 1970 on.
    alarms: Vec<Alarm>,
}

impl Flood {
    /// `count` alarms that `networks` networks raise in about `span`. `name` tells them from those of others.
    pub(super) fn new(name: &str, networks: u32, count: usize, span: Duration) -> Self {
        let prefix = format!("bench-{name}-");
        let each = count / usize::try_from(networks).unwrap_or(1).max(1);
        let mut faults = u32::try_from(each / LEAST_A_FAULT)
            .unwrap_or(u32::MAX)
            .max(15);
        let mut runs = runs(networks, faults, span);
        while total(&runs) < count {
            faults += faults / 4;
            runs = self::runs(networks, faults, span);
        }
        // The same once more, for as long as it takes the wanted number to come.
        #[expect(clippy::cast_precision_loss, reason = "counts of alarms")]
        let longer = total(&runs) as f64 / count.max(1) as f64;
        let runs = self::runs(networks, faults, span.mul_f64(longer));
        let (mut all, mut nodes) = (Vec::with_capacity(total(&runs)), Vec::new());
        for (number, run) in runs.into_iter().enumerate() {
            let own = |id: &str| format!("{prefix}{number}-{id}");
            nodes.push(
                run.nodes
                    .into_iter()
                    .map(|node| Node {
                        id: own(&node.id),
                        parent: node.parent.as_deref().map(own),
                        ..node
                    })
                    .collect(),
            );
            all.extend(run.alarms.into_iter().map(|mut alarm| {
                alarm.occurrence.entity_id = own(&alarm.occurrence.entity_id);
                alarm
            }));
        }
        all.sort_by_key(|alarm| alarm.arrives_at);
        all.truncate(count);
        Self {
            prefix,
            networks: nodes,
            alarms: all,
        }
    }

    /// How many alarms there are.
    pub(super) fn len(&self) -> usize {
        self.alarms.len()
    }

    /// Each network's entities, as the server takes them.
    pub(super) fn entities(&self) -> impl Iterator<Item = Value> {
        self.networks
            .iter()
            .map(|nodes| nodes.iter().map(Node::body).collect())
    }

    /// The body of a batch, in a flood that began at `begun`.
    pub(super) fn batch(&self, places: Range<usize>, begun: Timestamp) -> String {
        let alarms = self.alarms.get(places).unwrap_or_default().iter();
        let bodies: Vec<Value> = alarms
            .map(|alarm| {
                let mut alarm = alarm.clone();
                let after = alarm.occurrence.raised_at.as_micros();
                let at = begun.as_micros().saturating_add(after);
                alarm.occurrence.raised_at = Timestamp::from_micros(at);
                alarm.body()
            })
            .collect();
        Value::from(bodies).to_string()
    }

    /// Whether an entity is one of the flood's.
    pub(super) fn is_own(&self, entity_id: &str) -> bool {
        entity_id.starts_with(&self.prefix)
    }
}

fn runs(networks: u32, faults: u32, span: Duration) -> Vec<Run> {
    let run = |seed: u32| {
        let scenario = Scenario {
            seed: seed.into(),
            faults,
            span,
            flaws: Flaws::default(),
            start: Timestamp::default(),
        };
        scenario.run()
    };
    (0..networks).map(run).collect()
}

fn total(runs: &[Run]) -> usize {
    runs.iter().map(|run| run.alarms.len()).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn so_many_alarms_come_in_about_the_time_from_entities_that_are_known() {
        for (networks, count) in [(1, 1), (1, 2_000), (3, 7_000)] {
            let span = Duration::from_secs(60);
            let flood = Flood::new("x", networks, count, span);
            assert_eq!(flood.len(), count);
            let known: HashSet<String> = flood
                .entities()
                .flat_map(|nodes| nodes.as_array().unwrap().clone())
                .map(|node| node["id"].as_str().unwrap().to_owned())
                .collect();
            assert_eq!(known.len(), 988 * usize::try_from(networks).unwrap());
            let begun = Timestamp::from_secs(1_790_000_000);
            let body: Value = serde_json::from_str(&flood.batch(0..count, begun)).unwrap();
            let mut last = begun;
            for alarm in body.as_array().unwrap() {
                assert!(known.contains(alarm["entity_id"].as_str().unwrap()));
                last = last.max(Timestamp::parse(alarm["raised_at"].as_str().unwrap()).unwrap());
            }
            if count > 1 {
                let took = last.since(begun).as_secs_f64();
                assert!((45.0..90.0).contains(&took), "{networks}, {count}: {took}");
            }
            assert!(known.iter().all(|id| flood.is_own(id)) && !flood.is_own("core-1"));
            assert_eq!(flood.batch(count..count + 5, begun), "[]");
        }
    }
}
