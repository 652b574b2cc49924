//! The module's settings. The server reads them; their names are those of SPEC 3 and SHAPES.

use std::time::Duration;

use crate::Severity;

/// Settings of the alarms module.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `alarms.max_future`: how far a time may lie ahead of the server's clock.
    pub max_future: Duration,
    /// `alarms.entity_labels`: the labels of Alertmanager and Prometheus that name an entity, first found first.
    pub entity_labels: Vec<String>,
    /// `kpis.max_age`: how long samples are kept; zero is for ever.
    pub kpi_max_age: Duration,
    /// `correlation.flush_seconds`: how long after its first occurrence arrived a cluster is published, at most.
    pub flush: Duration,
    /// `correlation.type_rule`: when the same alarm type alone joins.
    pub type_rule: TypeRule,
    /// `incidents.min_severity`: the mildest cluster that opens an incident.
    pub incident_min_severity: Severity,
    /// `incidents.min_alarms`: the smallest cluster that opens an incident.
    pub incident_min_alarms: u64,
    /// `incidents.auto_resolve`: whether an incident is resolved when its last raised alarm clears.
    pub auto_resolve: bool,
    /// `incidents.require_approval`: whether both gates must be passed before `resolved`.
    pub require_approval: bool,
    /// `sleeping.min_samples`: samples that a baseline needs.
    pub sleeping_min_samples: u32,
    /// `sleeping.metrics`: the metrics that are watched.
    pub sleeping_metrics: Vec<String>,
    /// `sleeping.baseline`.
    pub sleeping_baseline: Baseline,
    /// `sleeping.enabled`: whether cells are scanned at all.
    pub sleeping_enabled: bool,
    /// `sleeping.scan_interval`: time between two scans.
    pub sleeping_scan: Duration,
}

/// When two alarms of one type, on entities without a relation, join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TypeRule {
    /// Where the topology of both is unknown.
    #[default]
    UnknownTopology,
    /// Always, as the system that tidings takes over from did.
    Always,
    /// Never.
    Never,
}

/// What a KPI sample is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Baseline {
    /// Mean and deviation of seven days.
    #[default]
    Plain,
    /// Median and its absolute deviation of the same hour of the week.
    Seasonal,
}

impl Default for Config {
    fn default() -> Self {
        let words = |words: &[&str]| words.iter().map(|&w| w.to_owned()).collect();
        Self {
            max_future: Duration::from_secs(300),
            entity_labels: words(&["entity_id", "resource", "instance", "job"]),
            kpi_max_age: Duration::from_secs(90 * 86_400),
            flush: Duration::from_secs(5),
            type_rule: TypeRule::default(),
            incident_min_severity: Severity::Warning,
            incident_min_alarms: 1,
            auto_resolve: true,
            require_approval: false,
            sleeping_min_samples: 30,
            sleeping_metrics: words(&["traffic_volume", "traffic_volume_gb"]),
            sleeping_baseline: Baseline::default(),
            sleeping_enabled: true,
            sleeping_scan: Duration::from_secs(300),
        }
    }
}
