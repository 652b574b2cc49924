//! A telecom network whose faults are known: what correlation is measured on. The same seed makes the same alarms.
//!
//! 4 cores, 24 aggregators (6 a core), 240 sites (10 an aggregator), 720 cells (3 a site); cells are part of their site, the
//! others depend on what is above them.
//!
//! Faults come as a Poisson process, on a core with .03, an aggregator .12, a site .45, a cell .40. Each goes on to every
//! child with .85 after a log-normal delay (μ .7, σ .8, seconds), and further down the same way. An alarm is lost with .10,
//! and repeated within 1 to 30 s with .10; every node's clock is off by N(0, 2 s); a fifth of all alarms is unrelated, each
//! a fault of its own.
//!
//! - `network`: the entities, their names, and what each hangs on

mod network;

use std::str::FromStr;
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use tidings_core::clock::Timestamp;

use crate::correlate::Occurrence;
use crate::severity::Severity;
use crate::topology::Topology;

use network::{CORES, FIRST_AGGREGATOR, FIRST_CELL, FIRST_SITE, children, id};
pub use network::{ENTITIES, Node};

/// Faults of a run where nothing else is said.
pub const FAULTS: u32 = 150;

/// How close upon each other the faults come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Load {
    /// Within 24 hours.
    #[default]
    Sparse,
    /// Within 4 hours.
    Busy,
    /// Within 30 minutes.
    Storm,
}

impl Load {
    /// All of them, the mildest first.
    pub const ALL: [Self; 3] = [Self::Sparse, Self::Busy, Self::Storm];

    /// The time that the faults come in.
    #[must_use]
    pub const fn span(self) -> Duration {
        Duration::from_secs(match self {
            Self::Sparse => 24 * 3600,
            Self::Busy => 4 * 3600,
            Self::Storm => 1800,
        })
    }

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sparse => "sparse",
            Self::Busy => "busy",
            Self::Storm => "storm",
        }
    }
}

/// The word is none for a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a load is sparse, busy or storm")]
pub struct UnknownLoad;

impl FromStr for Load {
    type Err = UnknownLoad;

    fn from_str(word: &str) -> Result<Self, UnknownLoad> {
        let is_it = |load: &Self| load.as_str() == word;
        Self::ALL.into_iter().find(is_it).ok_or(UnknownLoad)
    }
}

/// What is wrong with what is known, and with the way the alarms come in. All are parts of 1, by default 0.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Flaws {
    /// Relations that nobody has entered.
    pub missing: f64,
    /// Relations that name another parent than the true one.
    pub wrong: f64,
    /// Alarms that arrive up to two minutes late.
    pub late: f64,
}

/// One alarm, and why it is there.
#[derive(Debug, Clone)]
pub struct Alarm {
    /// What was raised.
    pub occurrence: Occurrence,
    /// How bad it is.
    pub severity: Severity,
    /// When it comes in.
    pub arrives_at: Timestamp,
    /// Its fault, by number; those from [`Run::faults`] on are unrelated alarms, one each.
    pub fault: u32,
}

impl Alarm {
    /// What `POST /api/v1/alarms/ingest` takes for it.
    #[must_use]
    pub fn body(&self) -> Value {
        json!({
            "entity_id": self.occurrence.entity_id,
            "alarm_type": self.occurrence.alarm_type,
            "severity": self.severity,
            "raised_at": self.occurrence.raised_at.to_string(),
            "source_system": "simulator",
        })
    }
}

/// A run: the network, and its alarms as they come in.
#[derive(Debug, Clone)]
pub struct Run {
    /// Parents before children.
    pub nodes: Vec<Node>,
    /// In the order in which they come in.
    pub alarms: Vec<Alarm>,
    /// The entity at fault, by fault.
    pub roots: Vec<String>,
    /// Faults that can have more than one alarm.
    pub faults: u32,
}

impl Run {
    /// The relations that are known.
    #[must_use]
    pub fn topology(&self) -> Topology {
        let mut topology = Topology::default();
        for node in &self.nodes {
            topology.set(&node.id, node.parent.iter().cloned().collect());
        }
        topology
    }
}

/// What a run is made of: equal ones make equal runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scenario {
    /// Which of all such runs.
    pub seed: u64,
    /// How many faults there are.
    pub faults: u32,
    /// The time that they come in.
    pub span: Duration,
    /// What is wrong with what is known.
    pub flaws: Flaws,
    /// When it begins.
    pub start: Timestamp,
}

impl Scenario {
    /// [`FAULTS`] under a load, from 1970 on, with nothing wrong.
    #[must_use]
    pub fn new(seed: u64, load: Load) -> Self {
        Self {
            seed,
            faults: FAULTS,
            span: load.span(),
            flaws: Flaws::default(),
            start: Timestamp::default(),
        }
    }

    /// The same for more or fewer faults, which come as close upon each other.
    #[must_use]
    pub fn with_faults(self, faults: u32) -> Self {
        Self {
            faults,
            span: self.span * faults / self.faults.max(1),
            ..self
        }
    }

    /// Makes the run.
    #[must_use]
    pub fn run(&self) -> Run {
        let mut rng = Rng::with_seed(self.seed);
        // Streams of their own, so that a flaw changes nothing but what it is about.
        let (mut flawed, mut named) = (rng.fork(), rng.fork());
        let mut maker = Maker {
            clocks: (0..ENTITIES).map(|_| 2.0 * normal(&mut rng)).collect(),
            rng,
            raised: Vec::new(),
        };
        let span = self.span.as_secs_f64();
        let (mut at, mut roots) = (0.0, Vec::new());
        for fault in 0..self.faults {
            at += -(1.0 - maker.rng.f64()).ln() * span / f64::from(self.faults);
            roots.push(id(maker.fault(fault, at)));
        }
        maker.unrelated(self.faults, span, &mut roots);
        let mut alarms: Vec<Alarm> = maker
            .raised
            .into_iter()
            .map(|(at, entity, fault)| {
                let when = (self.start, at);
                alarm(&mut named, &mut flawed, self.flaws, when, entity, fault)
            })
            .collect();
        alarms.sort_by(|a, b| {
            (a.arrives_at, &a.occurrence.event_id).cmp(&(b.arrives_at, &b.occurrence.event_id))
        });
        let nodes = (0..ENTITIES)
            .map(|entity| network::node(&mut flawed, self.flaws, entity))
            .collect();
        Run {
            nodes,
            alarms,
            roots,
            faults: self.faults,
        }
    }
}

/// Makes a run of [`FAULTS`] that begins at `start`.
#[must_use]
pub fn run(seed: u64, load: Load, flaws: Flaws, start: Timestamp) -> Run {
    let scenario = Scenario {
        flaws,
        start,
        ..Scenario::new(seed, load)
    };
    scenario.run()
}

struct Maker {
    rng: Rng,
    /// By entity, how many seconds its clock is ahead.
    clocks: Vec<f64>,
    /// When by its entity's clock, on what, and of which fault.
    raised: Vec<(f64, usize, u32)>,
}

impl Maker {
    /// A fault somewhere, and all that it takes with it. Says where.
    fn fault(&mut self, fault: u32, at: f64) -> usize {
        let where_to = self.rng.f64();
        let root = match where_to {
            x if x < 0.03 => self.rng.usize(0..CORES),
            x if x < 0.15 => self.rng.usize(FIRST_AGGREGATOR..FIRST_SITE),
            x if x < 0.60 => self.rng.usize(FIRST_SITE..FIRST_CELL),
            _ => self.rng.usize(FIRST_CELL..ENTITIES),
        };
        let mut reached = vec![(root, at)];
        while let Some((entity, at)) = reached.pop() {
            for child in children(entity) {
                if self.rng.f64() < 0.85 {
                    let delay = (0.7 + 0.8 * normal(&mut self.rng)).exp();
                    reached.push((child, at + delay));
                }
            }
            if self.rng.f64() >= 0.10 {
                let at = at + self.clocks[entity];
                self.raised.push((at, entity, fault));
                if self.rng.f64() < 0.10 {
                    let again = at + 1.0 + 29.0 * self.rng.f64();
                    self.raised.push((again, entity, fault));
                }
            }
        }
        root
    }

    /// A fifth of all alarms, each a fault of its own.
    fn unrelated(&mut self, first: u32, span: f64, roots: &mut Vec<String>) {
        for fault in (first..).take(self.raised.len() / 4) {
            let (at, entity) = (span * self.rng.f64(), self.rng.usize(0..ENTITIES));
            self.raised.push((at, entity, fault));
            roots.push(id(entity));
        }
    }
}

const TYPES: [(&str, Severity); 5] = [
    ("LINK_DOWN", Severity::Critical),
    ("POWER_FAILURE", Severity::Critical),
    ("HIGH_TEMPERATURE", Severity::Major),
    ("SYNC_LOST", Severity::Minor),
    ("LOW_THROUGHPUT", Severity::Warning),
];

fn alarm(
    named: &mut Rng,
    flawed: &mut Rng,
    flaws: Flaws,
    (start, at): (Timestamp, f64),
    entity: usize,
    fault: u32,
) -> Alarm {
    let (alarm_type, severity) = TYPES[named.usize(0..TYPES.len())];
    let event_id = uuid::Builder::from_random_bytes(named.u128(..).to_be_bytes()).into_uuid();
    // An early fault on a clock that is behind may be stamped before the start.
    let raised_at = if at < 0.0 {
        start.minus(Duration::from_secs_f64(-at))
    } else {
        start.plus(Duration::from_secs_f64(at))
    };
    let is_late = flawed.f64() < flaws.late;
    let late = flawed.f64() * if is_late { 120.0 } else { 0.5 };
    Alarm {
        occurrence: Occurrence {
            event_id: event_id.to_string(),
            entity_id: id(entity),
            alarm_type: alarm_type.into(),
            raised_at,
        },
        severity,
        arrives_at: raised_at.plus(Duration::from_secs_f64(late)),
        fault,
    }
}

/// A standard normal number.
fn normal(rng: &mut Rng) -> f64 {
    let (radius, angle) = (1.0 - rng.f64(), rng.f64());
    (-2.0 * radius.ln()).sqrt() * (2.0 * std::f64::consts::PI * angle).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_is_the_stated_one() {
        let run = run(1, Load::Sparse, Flaws::default(), Timestamp::from_secs(0));
        let of = |kind: &str| run.nodes.iter().filter(|n| n.entity_type == kind).count();
        assert_eq!(
            [of("ROUTER"), of("SWITCH"), of("SITE"), of("CELL")],
            [4, 24, 240, 720]
        );
        let topology = run.topology();
        assert_eq!(topology.len(), ENTITIES);
        assert_eq!(topology.children("core-1").len(), 6);
        assert_eq!(topology.children("agg-24").len(), 10);
        assert_eq!(topology.parents("cell-2410-3"), ["site-2410"]);
        assert_eq!(topology.parents("site-2410"), ["agg-24"]);
        assert_eq!(topology.parents("agg-24"), ["core-4"]);
    }

    #[test]
    fn one_seed_makes_one_run_and_a_fifth_is_unrelated() {
        let start = Timestamp::from_secs(1_790_000_000);
        let [a, b] = [0, 1].map(|_| run(7, Load::Storm, Flaws::default(), start));
        let ids = |r: &Run| -> Vec<String> {
            r.alarms
                .iter()
                .map(|a| a.occurrence.event_id.clone())
                .collect()
        };
        assert_eq!(ids(&a), ids(&b));
        assert_ne!(ids(&a), ids(&run(8, Load::Storm, Flaws::default(), start)));
        let unrelated = a.alarms.iter().filter(|a| a.fault >= FAULTS).count();
        let part = unrelated as f64 / a.alarms.len() as f64;
        assert!((0.19..0.21).contains(&part), "{part}");
        assert_eq!(a.roots.len(), FAULTS as usize + unrelated);
    }

    #[test]
    fn more_faults_take_more_time_and_no_more_room() {
        let load = Load::Busy;
        let (one, ten) = (
            Scenario::new(7, load),
            Scenario::new(7, load).with_faults(1_500),
        );
        assert_eq!(one.with_faults(FAULTS), one);
        assert_eq!(ten.span, load.span() * 10);
        let (one, ten) = (one.run(), ten.run());
        let growth = ten.alarms.len() as f64 / one.alarms.len() as f64;
        assert!((7.0..13.0).contains(&growth), "{growth}");
        let unrelated = ten.alarms.iter().filter(|a| a.fault >= ten.faults).count();
        assert_eq!(ten.roots.len(), ten.faults as usize + unrelated);
        for load in Load::ALL {
            assert_eq!(load.as_str().parse(), Ok(load));
        }
        assert_eq!("calm".parse::<Load>(), Err(UnknownLoad));
    }

    #[test]
    fn flaws_are_in_what_is_known_alone() {
        let start = Timestamp::from_secs(1_790_000_000);
        let flaws = Flaws {
            missing: 0.1,
            wrong: 0.1,
            late: 0.1,
        };
        let (plain, flawed) = (
            run(3, Load::Busy, Flaws::default(), start),
            run(3, Load::Busy, flaws, start),
        );
        let mut ids = [&plain, &flawed].map(|r| {
            let mut ids: Vec<_> = r
                .alarms
                .iter()
                .map(|a| (&a.occurrence.event_id, a.occurrence.raised_at))
                .collect();
            ids.sort_unstable();
            ids
        });
        let [a, b] = &mut ids;
        assert_eq!(a, b);
        let missing = flawed
            .nodes
            .iter()
            .skip(CORES)
            .filter(|n| n.parent.is_none())
            .count();
        assert!((60..140).contains(&missing), "{missing}");
        let truth = |r: &Run| {
            r.nodes
                .iter()
                .map(|n| n.true_parent.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(truth(&plain), truth(&flawed));
        assert!(plain.nodes.iter().all(|n| n.parent == n.true_parent));
        let late = flawed
            .alarms
            .iter()
            .filter(|a| a.arrives_at.since(a.occurrence.raised_at) > Duration::from_secs(1))
            .count();
        assert!(late * 5 > flawed.alarms.len() / 3, "{late}");
    }
}
