//! Settings of the alarms module: their part of the table, and the module's own [`Config`].

use tidings_alarms::{Baseline, Config, Severity, TypeRule};

use super::kind::Kind;
use super::settings::{D, H, S, Setting, with};
use super::typed::Values;

/// Their part of the table.
pub(super) fn settings() -> Vec<Setting> {
    let mut settings = vec![
        with(
            "alarms.max_future",
            Kind::Span(S, D, true),
            "5m",
            "How far `raised_at` may lie ahead of the server's clock; more is answered 422.",
        ),
        with(
            "alarms.entity_labels",
            Kind::List,
            "entity_id,resource,instance,job",
            "Labels of Alertmanager and Prometheus that name the entity; the first that is there counts.",
        ),
        with(
            "kpis.max_age",
            Kind::Span(S, 3_650 * D, true),
            "90d",
            "How long KPI samples are kept; 0 is for ever. The seasonal baseline looks 28 days back.",
        ),
        with(
            "correlation.flush_seconds",
            Kind::Span(S, H, false),
            "5s",
            "Time after which a cluster is published, from the arrival of its first alarm.",
        ),
        with(
            "correlation.type_rule",
            Kind::Choice(&["unknown_topology", "always", "never"]),
            "unknown_topology",
            "When alarms of one type on unrelated entities join: where no relation of theirs is known, always, or never.",
        ),
        with(
            "incidents.min_severity",
            Kind::Choice(&["warning", "minor", "major", "critical", "indeterminate"]),
            "warning",
            "Mildest severity of a cluster that opens an incident; `indeterminate` is milder than `warning`.",
        ),
        with(
            "incidents.min_alarms",
            Kind::Count(1, 1_000_000, false),
            "1",
            "Fewest alarms of a cluster that opens an incident.",
        ),
        with(
            "incidents.auto_resolve",
            Kind::Switch,
            "true",
            "Whether an incident is resolved when its last raised alarm clears.",
        ),
        with(
            "incidents.require_approval",
            Kind::Switch,
            "false",
            "Whether situation report and action plan must be approved before an incident is resolved.",
        ),
    ];
    settings.extend(sleeping());
    settings
}

fn sleeping() -> Vec<Setting> {
    vec![
        with(
            "sleeping.enabled",
            Kind::Switch,
            "true",
            "Whether KPI samples are searched for sleeping cells.",
        )
        .aliases(&["SLEEPING_CELL_ENABLED"]),
        with(
            "sleeping.scan_interval",
            Kind::Span(S, D, false),
            "5m",
            "Time between two searches.",
        )
        .aliases(&["SLEEPING_CELL_SCAN_INTERVAL_SECONDS"]),
        with(
            "sleeping.min_samples",
            Kind::Count(2, 100_000, false),
            "30",
            "Fewest samples that a baseline is made of.",
        ),
        with(
            "sleeping.metrics",
            Kind::List,
            "traffic_volume,traffic_volume_gb",
            "Metrics that are searched.",
        ),
        with(
            "sleeping.baseline",
            Kind::Choice(&["plain", "seasonal"]),
            "plain",
            "What a sample is compared with: mean and deviation of seven days, or median and its deviation at the same hour of the week.",
        ),
    ]
}

/// What they come to.
pub(super) fn build(v: &Values<'_>) -> Config {
    let severity = v
        .text("incidents.min_severity")
        .and_then(|word| word.parse().ok());
    let switch = |key| v.must(key, v.switch(key));
    let count = |key| v.must(key, v.count(key));
    Config {
        max_future: v.must_span("alarms.max_future"),
        entity_labels: v.must_list("alarms.entity_labels"),
        kpi_max_age: v.must_span("kpis.max_age"),
        flush: v.must_span("correlation.flush_seconds"),
        type_rule: match v.text("correlation.type_rule").as_deref() {
            Some("always") => TypeRule::Always,
            Some("never") => TypeRule::Never,
            _ => TypeRule::UnknownTopology,
        },
        incident_min_severity: severity.unwrap_or(Severity::Warning),
        incident_min_alarms: count("incidents.min_alarms"),
        auto_resolve: switch("incidents.auto_resolve"),
        require_approval: switch("incidents.require_approval"),
        sleeping_enabled: switch("sleeping.enabled"),
        sleeping_scan: v.must_span("sleeping.scan_interval"),
        sleeping_min_samples: u32::try_from(count("sleeping.min_samples")).unwrap_or(u32::MAX),
        sleeping_metrics: v.must_list("sleeping.metrics"),
        sleeping_baseline: match v.text("sleeping.baseline").as_deref() {
            Some("seasonal") => Baseline::Seasonal,
            _ => Baseline::Plain,
        },
    }
}
