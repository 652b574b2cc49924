//! Traffic made from a seed: the four modules' topics, as their systems would send them.
//!
//! Each source is a small world that moves one step per event: alarms come in bursts below a fault and clear again,
//! vital signs wander and now and then leave their range, devices boot and report. The same seed and the same times make
//! the same events. Nothing here sends anything.

mod alarms;
mod alerts;
mod devices;
mod notifications;

use fastrand::Rng;
use serde_json::Value;
use tidings_core::clock::Timestamp;

use self::alarms::Network;
use self::alerts::Ward;
use self::devices::Fleet;
use self::notifications::Office;

/// An event before it is published.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Simulated {
    /// Where.
    pub(crate) topic: String,
    /// What.
    pub(crate) kind: &'static str,
    /// Its content.
    pub(crate) data: Value,
}

impl Simulated {
    fn new(topic: impl Into<String>, kind: &'static str, data: Value) -> Self {
        Self {
            topic: topic.into(),
            kind,
            data,
        }
    }

    /// What a network element would send of it, where it is an alarm: tidings makes the event, and all that follows from it.
    pub(crate) fn alarm(&self) -> Option<Value> {
        let is_clear = match self.kind {
            "alarm_ingested" => false,
            "alarm_cleared" => true,
            _ => return None,
        };
        let mut alarm = serde_json::Map::new();
        for name in [
            "entity_id",
            "entity_external_id",
            "alarm_type",
            "specific_problem",
            "probable_cause",
            "severity",
            "raised_at",
            "source_system",
        ] {
            alarm.insert(name.to_owned(), self.data.get(name)?.clone());
        }
        if is_clear {
            alarm.insert("severity".to_owned(), "cleared".into());
            alarm.insert("raised_at".to_owned(), self.data.get("cleared_at")?.clone());
        }
        Some(alarm.into())
    }
}

/// The network that the alarms come from, as entities: parents before children.
pub(crate) use alarms::entities;

/// A source of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// A network's alarms: `alarms`.
    Alarms,
    /// A ward's vital signs and alerts: `vitals/N`, `alerts/patients/N`.
    Alerts,
    /// People's inboxes: `notifications/users/N`.
    Notifications,
    /// A fleet's log lines and rotations: `devices/N/logs`, `signals/rotation`.
    Devices,
}

/// Each source, and how many of a hundred events are its own.
const SHARES: [(Kind, u32); 4] = [
    (Kind::Alarms, 20),
    (Kind::Alerts, 40),
    (Kind::Notifications, 10),
    (Kind::Devices, 30),
];

/// Endless traffic of all sources, or of some.
#[derive(Debug)]
pub(crate) struct Traffic {
    rng: Rng,
    shares: Vec<(Kind, u32)>,
    network: Network,
    ward: Ward,
    office: Office,
    fleet: Fleet,
}

impl Traffic {
    /// Traffic of all sources.
    pub(crate) fn new(seed: u64) -> Self {
        Self::of(seed, &[])
    }

    /// Traffic of these sources; of all where none is named.
    pub(crate) fn of(seed: u64, kinds: &[Kind]) -> Self {
        let mut rng = Rng::with_seed(seed);
        let is_wanted = |kind: &Kind| kinds.is_empty() || kinds.contains(kind);
        Self {
            shares: SHARES
                .into_iter()
                .filter(|(kind, _)| is_wanted(kind))
                .collect(),
            network: Network::default(),
            ward: Ward::new(&mut rng),
            office: Office::default(),
            fleet: Fleet::new(&mut rng),
            rng,
        }
    }

    /// What happens next, at this moment.
    pub(crate) fn next(&mut self, now: Timestamp) -> Simulated {
        let rng = &mut self.rng;
        let total: u32 = self.shares.iter().map(|(_, share)| share).sum();
        let mut drawn = rng.u32(0..total.max(1));
        let kind = self.shares.iter().find(|(_, share)| {
            let is_it = drawn < *share;
            drawn = drawn.saturating_sub(*share);
            is_it
        });
        match kind.map_or(Kind::Alarms, |(kind, _)| *kind) {
            Kind::Alarms => self.network.next(rng, now),
            Kind::Alerts => self.ward.next(rng, now),
            Kind::Notifications => self.office.next(rng, now),
            Kind::Devices => self.fleet.next(rng, now),
        }
    }
}

/// One of several.
fn pick<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(0..of.len())]
}

/// An id in the form of a UUID, from the seed.
fn id(rng: &mut Rng) -> String {
    let bits = format!("{:032x}", rng.u128(..));
    let (a, b, c, d, e) = (
        &bits[..8],
        &bits[8..12],
        &bits[13..16],
        &bits[17..20],
        &bits[20..],
    );
    format!("{a}-{b}-4{c}-8{d}-{e}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tidings_core::event::EventType;
    use tidings_core::topic::Topic;

    use super::*;

    fn make(seed: u64, kinds: &[Kind], count: i64) -> Vec<Simulated> {
        let mut traffic = Traffic::of(seed, kinds);
        (0..count)
            .map(|n| traffic.next(Timestamp::from_secs(1_790_000_000 + n)))
            .collect()
    }

    #[test]
    fn the_same_seed_makes_the_same_events() {
        assert_eq!(make(7, &[], 2_000), make(7, &[], 2_000));
        assert_ne!(make(7, &[], 100), make(8, &[], 100));
        let mut traffic = Traffic::new(7);
        assert_eq!(
            traffic.next(Timestamp::from_secs(1_790_000_000)),
            make(7, &[], 1)[0]
        );
    }

    #[test]
    fn every_event_can_be_published_and_every_kind_of_topic_comes() {
        let mut seen = BTreeMap::new();
        for event in make(1, &[], 20_000) {
            let topic = Topic::new(&event.topic).unwrap();
            EventType::new(event.kind).unwrap();
            assert!(event.data.is_object(), "{event:?}");
            *seen
                .entry((topic.prefix().to_owned(), event.kind))
                .or_insert(0) += 1;
        }
        let names: Vec<_> = seen
            .keys()
            .map(|(prefix, kind)| format!("{prefix} {kind}"))
            .collect();
        let wanted = [
            "alarms alarm_acknowledged",
            "alarms alarm_cleared",
            "alarms alarm_cluster_created",
            "alarms alarm_ingested",
            "alerts alert",
            "alerts alert_acknowledged",
            "alerts alert_escalated",
            "devices device-logs",
            "notifications notification",
            "notifications notification_read",
            "signals rotation-updated",
            "vitals vital",
        ];
        assert_eq!(names, wanted, "{seen:?}");
    }

    #[test]
    fn a_source_can_be_had_alone() {
        for event in make(3, &[Kind::Notifications], 500) {
            assert!(event.topic.starts_with("notifications/users/"));
        }
    }

    #[test]
    fn what_is_cleared_or_acknowledged_was_raised() {
        let mut raised = std::collections::HashSet::new();
        for event in make(5, &[Kind::Alarms, Kind::Alerts], 20_000) {
            let id = |name: &str| event.data[name].as_str().unwrap_or_default().to_owned();
            match event.kind {
                "alarm_ingested" => {
                    assert!(raised.insert(id("id")) || event.data["raise_count"] != 1);
                }
                "alarm_cleared" | "alarm_acknowledged" => assert!(raised.contains(&id("id"))),
                "alert" => assert!(raised.insert(id("alertId"))),
                "alert_acknowledged" | "alert_escalated" => {
                    assert!(raised.contains(&id("alertId")));
                }
                _ => {}
            }
        }
    }
}
