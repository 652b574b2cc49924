//! A telecom network: a tree of cores, aggregators, sites and cells. A fault raises an alarm and, shortly after, alarms
//! below it; alarms are acknowledged, raised again, and clear.

use std::collections::VecDeque;

use fastrand::Rng;
use serde_json::{Value, json};
use tidings_core::clock::Timestamp;

use super::{Simulated, id, pick};

/// More open alarms than this, and the next step clears one.
const MAX_OPEN: usize = 120;
/// Fewer than this, and the next step begins a fault.
const MIN_OPEN: usize = 15;

/// Type, specific problem, probable cause, severity.
type Problem = (&'static str, &'static str, &'static str, &'static str);

const FAULTS: [Problem; 6] = [
    (
        "communicationsAlarm",
        "LINK_DOWN",
        "lossOfSignal",
        "critical",
    ),
    (
        "equipmentAlarm",
        "POWER_FAILURE",
        "powerProblem",
        "critical",
    ),
    (
        "equipmentAlarm",
        "FAN_FAILURE",
        "coolingFanFailure",
        "major",
    ),
    (
        "environmentalAlarm",
        "HIGH_TEMPERATURE",
        "temperatureUnacceptable",
        "major",
    ),
    (
        "communicationsAlarm",
        "BGP_NEIGHBOUR_LOST",
        "communicationsProtocolError",
        "major",
    ),
    (
        "processingErrorAlarm",
        "CPU_OVERLOAD",
        "cpuCyclesLimitExceeded",
        "minor",
    ),
];
const EFFECTS: [Problem; 5] = [
    (
        "communicationsAlarm",
        "S1_LINK_DOWN",
        "connectionEstablishmentError",
        "major",
    ),
    (
        "qualityOfServiceAlarm",
        "CELL_UNAVAILABLE",
        "performanceDegraded",
        "major",
    ),
    (
        "qualityOfServiceAlarm",
        "HIGH_PACKET_LOSS",
        "performanceDegraded",
        "minor",
    ),
    (
        "communicationsAlarm",
        "SYNC_LOST",
        "timingProblem",
        "warning",
    ),
    (
        "qualityOfServiceAlarm",
        "LOW_THROUGHPUT",
        "thresholdCrossed",
        "warning",
    ),
];
const OPERATORS: [&str; 4] = ["a.okafor", "m.lindqvist", "j.tanaka", "r.mendes"];

/// Every entity that an alarm can be of, with what it hangs on.
pub(crate) fn entities() -> Vec<Value> {
    let mut all: Vec<Value> = (1..=4)
        .map(|core| json!({ "id": format!("core-{core}"), "entity_type": "ROUTER", "sla_tier": "GOLD" }))
        .collect();
    for aggregator in 1..=24 {
        let id = format!("agg-{aggregator:02}");
        let core = format!("core-{}", (aggregator - 1) / 6 + 1);
        all.push(json!({ "id": id, "entity_type": "SWITCH", "depends_on": [core], "sla_tier": "SILVER" }));
        for site in 1..=10 {
            let name = format!("{aggregator:02}{site:02}");
            let entity_type = if site == 10 {
                "EMERGENCY_SERVICE"
            } else {
                "SITE"
            };
            let site_id = format!("site-{name}");
            all.push(json!({ "id": site_id, "entity_type": entity_type, "depends_on": [id], "sla_tier": "BRONZE", "revenue_weight": 1.0 }));
            all.extend((1..=3).map(|cell| json!({ "id": format!("cell-{name}-{cell}"), "entity_type": "CELL", "part_of": [site_id] })));
        }
    }
    all
}

#[derive(Debug, Default)]
pub(super) struct Network {
    open: Vec<Open>,
    /// Effects of a fault that have not been noticed yet, and at the end the cluster that they make.
    coming: VecDeque<Coming>,
}

#[derive(Debug)]
struct Open {
    id: String,
    entity: String,
    problem: Problem,
    first_raised_at: Timestamp,
    raised_at: Timestamp,
    raise_count: u32,
    acknowledged: Option<(&'static str, Timestamp)>,
}

#[derive(Debug)]
enum Coming {
    Effect {
        entity: String,
    },
    Cluster {
        root: String,
        severity: &'static str,
        alarms: usize,
    },
}

impl Network {
    pub(super) fn next(&mut self, rng: &mut Rng, now: Timestamp) -> Simulated {
        if let Some(coming) = self.coming.pop_front() {
            return match coming {
                Coming::Effect { entity } => {
                    let problem = pick(rng, &EFFECTS);
                    self.raise(rng, entity, problem, now)
                }
                Coming::Cluster {
                    root,
                    severity,
                    alarms,
                } => Simulated::new(
                    "alarms",
                    "alarm_cluster_created",
                    json!({
                        "cluster_id": id(rng), "alarm_count": alarms, "root_cause_entity_id": root,
                        "severity": severity, "is_emergency_service": false, "timestamp": now.to_string(),
                    }),
                ),
            };
        }
        let step = rng.u32(0..100);
        if self.open.len() < MIN_OPEN || (self.open.len() < MAX_OPEN && step < 12) {
            return self.fault(rng, now);
        }
        let at = rng.usize(0..self.open.len());
        match step {
            12..35 if self.open[at].acknowledged.is_none() => {
                let alarm = &mut self.open[at];
                alarm.acknowledged = Some((pick(rng, &OPERATORS), now));
                Simulated::new("alarms", "alarm_acknowledged", alarm.data(None, now))
            }
            35..45 => {
                let alarm = &mut self.open[at];
                alarm.raise_count += 1;
                alarm.raised_at = now;
                Simulated::new("alarms", "alarm_ingested", alarm.data(None, now))
            }
            _ => {
                let alarm = self.open.swap_remove(at);
                Simulated::new("alarms", "alarm_cleared", alarm.data(Some(now), now))
            }
        }
    }

    /// A fault somewhere in the tree; the higher, the more it takes with it.
    fn fault(&mut self, rng: &mut Rng, now: Timestamp) -> Simulated {
        let (aggregator, site) = (rng.u32(1..=24), rng.u32(1..=10));
        let core = (aggregator - 1) / 6 + 1;
        let site_name = |site: u32| format!("site-{aggregator:02}{site:02}");
        let cells =
            |site: u32| (1..=3).map(move |cell| format!("cell-{aggregator:02}{site:02}-{cell}"));
        let (entity, below): (String, Vec<String>) = match rng.u32(0..100) {
            0..3 => (
                format!("core-{core}"),
                (1..=10)
                    .map(site_name)
                    .chain([format!("agg-{aggregator:02}")])
                    .collect(),
            ),
            3..15 => (
                format!("agg-{aggregator:02}"),
                (1..=10).map(site_name).collect(),
            ),
            15..60 => (site_name(site), cells(site).collect()),
            _ => (
                format!("cell-{aggregator:02}{site:02}-{}", rng.u32(1..=3)),
                Vec::new(),
            ),
        };
        let problem = pick(rng, &FAULTS);
        let effects: Vec<_> = below.into_iter().filter(|_| rng.f64() < 0.85).collect();
        if !effects.is_empty() {
            let alarms = effects.len() + 1;
            let severity = problem.3;
            self.coming
                .extend(effects.into_iter().map(|entity| Coming::Effect { entity }));
            self.coming.push_back(Coming::Cluster {
                root: entity.clone(),
                severity,
                alarms,
            });
        }
        self.raise(rng, entity, problem, now)
    }

    fn raise(
        &mut self,
        rng: &mut Rng,
        entity: String,
        problem: Problem,
        now: Timestamp,
    ) -> Simulated {
        let alarm = Open {
            id: id(rng),
            entity,
            problem,
            first_raised_at: now,
            raised_at: now,
            raise_count: 1,
            acknowledged: None,
        };
        let data = alarm.data(None, now);
        self.open.push(alarm);
        Simulated::new("alarms", "alarm_ingested", data)
    }
}

impl Open {
    fn data(&self, cleared_at: Option<Timestamp>, now: Timestamp) -> Value {
        let (alarm_type, specific_problem, probable_cause, severity) = self.problem;
        json!({
            "id": self.id,
            "entity_id": self.entity,
            "entity_external_id": format!("NE-{}", self.entity.to_uppercase()),
            "alarm_type": alarm_type,
            "specific_problem": specific_problem,
            "probable_cause": probable_cause,
            "severity": severity,
            "condition": if cleared_at.is_some() { "cleared" } else { "raised" },
            "operator_state": if self.acknowledged.is_some() { "acknowledged" } else { "none" },
            "acknowledged_by": self.acknowledged.map(|(by, _)| by),
            "acknowledged_at": self.acknowledged.map(|(_, at)| at.to_string()),
            "raised_at": self.raised_at.to_string(),
            "cleared_at": cleared_at.map(|at| at.to_string()),
            "first_raised_at": self.first_raised_at.to_string(),
            "updated_at": now.to_string(),
            "raise_count": self.raise_count,
            "flap_count": self.raise_count - 1,
            "flapping": self.raise_count > 3,
            "source_system": "simulator",
        })
    }
}
