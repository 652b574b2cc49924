//! A telecom network whose faults are known: what correlation is measured on. The same seed makes the same alarms.
//!
//! 4 cores, 24 aggregators, 240 sites, 720 cells. Faults come as a Poisson process and travel down; alarms are lost and
//! repeated, clocks are off, and a fifth of all alarms has to do with nothing. SHAPES states the numbers.

use std::time::Duration;

use fastrand::Rng;
use tidings_core::clock::Timestamp;

use crate::correlate::Occurrence;
use crate::severity::Severity;
use crate::topology::Topology;

/// Faults of one run.
pub const FAULTS: u32 = 150;
const CORES: usize = 4;
const AGGREGATORS: usize = 24;
const SITES: usize = 240;
const CELLS: usize = 720;
const FIRST_AGGREGATOR: usize = CORES;
const FIRST_SITE: usize = FIRST_AGGREGATOR + AGGREGATORS;
const FIRST_CELL: usize = FIRST_SITE + SITES;
/// Entities of the network.
pub const ENTITIES: usize = FIRST_CELL + CELLS;

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

/// One entity of the network.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// Its type, as entities have it.
    pub entity_type: &'static str,
    /// What it hangs on, as it is known.
    pub parent: Option<String>,
}

impl Node {
    /// Whether it is part of its parent; else it depends on it.
    #[must_use]
    pub fn is_part(&self) -> bool {
        self.entity_type == "CELL"
    }
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
    /// Its fault, by number; those from [`FAULTS`] on have one alarm each.
    pub fault: u32,
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

/// Makes a run that begins at `start`.
#[must_use]
pub fn run(seed: u64, load: Load, flaws: Flaws, start: Timestamp) -> Run {
    let mut rng = Rng::with_seed(seed);
    // Streams of their own, so that a flaw changes nothing but what it is about.
    let (mut flawed, mut named) = (rng.fork(), rng.fork());
    let mut maker = Maker {
        clocks: (0..ENTITIES).map(|_| 2.0 * normal(&mut rng)).collect(),
        rng,
        raised: Vec::new(),
    };
    let span = load.span().as_secs_f64();
    let (mut at, mut roots) = (0.0, Vec::new());
    for fault in 0..FAULTS {
        at += -(1.0 - maker.rng.f64()).ln() * span / f64::from(FAULTS);
        roots.push(id(maker.fault(fault, at)));
    }
    maker.unrelated(span, &mut roots);
    let mut alarms: Vec<Alarm> = maker
        .raised
        .into_iter()
        .map(|(at, entity, fault)| {
            alarm(&mut named, &mut flawed, flaws, (start, at), entity, fault)
        })
        .collect();
    alarms.sort_by(|a, b| {
        (a.arrives_at, &a.occurrence.event_id).cmp(&(b.arrives_at, &b.occurrence.event_id))
    });
    let nodes = (0..ENTITIES)
        .map(|entity| node(&mut flawed, flaws, entity))
        .collect();
    Run {
        nodes,
        alarms,
        roots,
    }
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
    fn unrelated(&mut self, span: f64, roots: &mut Vec<String>) {
        for fault in (FAULTS..).take(self.raised.len() / 4) {
            let (at, entity) = (span * self.rng.f64(), self.rng.usize(0..ENTITIES));
            self.raised.push((at, entity, fault));
            roots.push(id(entity));
        }
    }
}

fn children(entity: usize) -> std::ops::Range<usize> {
    let (first, each) = match entity {
        e if e < FIRST_AGGREGATOR => (FIRST_AGGREGATOR + e * 6, 6),
        e if e < FIRST_SITE => (FIRST_SITE + (e - FIRST_AGGREGATOR) * 10, 10),
        e if e < FIRST_CELL => (FIRST_CELL + (e - FIRST_SITE) * 3, 3),
        _ => (0, 0),
    };
    first..first + each
}

fn parent(entity: usize) -> Option<usize> {
    match entity {
        e if e < FIRST_AGGREGATOR => None,
        e if e < FIRST_SITE => Some((e - FIRST_AGGREGATOR) / 6),
        e if e < FIRST_CELL => Some(FIRST_AGGREGATOR + (e - FIRST_SITE) / 10),
        e => Some(FIRST_SITE + (e - FIRST_CELL) / 3),
    }
}

fn id(entity: usize) -> String {
    let aggregator = |e: usize| e - FIRST_AGGREGATOR + 1;
    let site = |e: usize| {
        let up = aggregator(FIRST_AGGREGATOR + (e - FIRST_SITE) / 10);
        format!("{up:02}{:02}", (e - FIRST_SITE) % 10 + 1)
    };
    match entity {
        e if e < FIRST_AGGREGATOR => format!("core-{}", e + 1),
        e if e < FIRST_SITE => format!("agg-{:02}", aggregator(e)),
        e if e < FIRST_CELL => format!("site-{}", site(e)),
        e => {
            let up = FIRST_SITE + (e - FIRST_CELL) / 3;
            format!("cell-{}-{}", site(up), (e - FIRST_CELL) % 3 + 1)
        }
    }
}

fn node(rng: &mut Rng, flaws: Flaws, entity: usize) -> Node {
    let entity_type = match entity {
        e if e < FIRST_AGGREGATOR => "ROUTER",
        e if e < FIRST_SITE => "SWITCH",
        e if e < FIRST_CELL => "SITE",
        _ => "CELL",
    };
    let (is_missing, is_wrong) = (rng.f64() < flaws.missing, rng.f64() < flaws.wrong);
    let other = rng.f64();
    let parent = parent(entity).filter(|_| !is_missing).map(|parent| {
        let (first, count) = match parent {
            p if p < FIRST_AGGREGATOR => (0, CORES),
            p if p < FIRST_SITE => (FIRST_AGGREGATOR, AGGREGATORS),
            _ => (FIRST_SITE, SITES),
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a few hundred entities"
        )]
        let shift = 1 + (other * (count - 1) as f64) as usize;
        let wrong = first + (parent - first + shift) % count;
        id(if is_wrong { wrong } else { parent })
    });
    Node {
        id: id(entity),
        entity_type,
        parent,
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
        for entity in 0..ENTITIES {
            assert!(children(entity).all(|c| parent(c) == Some(entity)));
        }
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
        let late = flawed
            .alarms
            .iter()
            .filter(|a| a.arrives_at.since(a.occurrence.raised_at) > Duration::from_secs(1))
            .count();
        assert!(late * 5 > flawed.alarms.len() / 3, "{late}");
    }
}
