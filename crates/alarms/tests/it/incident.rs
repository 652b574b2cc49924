//! Incidents on a database: what clusters, clears and people do to them.

use serde_json::{Value, json};
use tidings_alarms::alarm::Request;
use tidings_alarms::cluster::{self, Cluster};
use tidings_alarms::incident::{
    self, Actor, Change, Gate, Incident, NewIncident, Query, Severity, Sort, Status,
};
use tidings_alarms::ingest::{Context, native};
use tidings_alarms::{Alarms, Config, Error, sitrep};
use tidings_core::clock::Timestamp;
use tidings_core::tenant::Tenant;

use crate::support::{Bed, START, events, on_each_backend, tenant};

fn ann() -> Actor {
    Actor::caller("ann", Some("4bf92f3577b34da6a3ce929d0e0e4736".into()))
}

async fn ingest(alarms: &Alarms, of: &Tenant, entity: &str, severity: &str, secs: i64) -> String {
    let body = json!({
        "entity_id": entity, "alarm_type": "LINK_DOWN", "severity": severity, "source_system": "nms",
        "raised_at": Timestamp::from_secs(START + secs).to_string(), "entity_external_id": format!("x-{entity}"),
    });
    let context = Context {
        config: alarms.config(),
        now: alarms.clock().now(),
    };
    let request = Request {
        occurrences: native::many(vec![body], context).unwrap(),
        trace: None,
    };
    alarms.ingest(of, request).await.unwrap().0[0]
        .alarm_id
        .clone()
}

fn cluster(id: &str, entities: &[&str], alarm_ids: &[String], severity: &str) -> Cluster {
    Cluster {
        cluster_id: id.into(),
        alarm_count: alarm_ids.len() as u64,
        open_alarm_count: alarm_ids.len() as u64,
        event_ids: Vec::new(),
        alarm_ids: alarm_ids.to_vec(),
        entity_ids: entities.iter().map(|&e| e.to_owned()).collect(),
        root_cause_entity_id: entities.first().map(|&e| e.to_owned()),
        confidence: 0.875,
        severity: severity.parse().unwrap(),
        is_emergency_service: false,
        started_at: Timestamp::from_secs(START),
        ended_at: Timestamp::from_secs(START + 10),
        edges: Vec::new(),
        merged_into: None,
        continues: None,
    }
}

/// One in which an emergency service was found.
fn emergency(of: Cluster) -> Cluster {
    Cluster {
        is_emergency_service: true,
        ..of
    }
}

async fn change(alarms: &Alarms, of: &Tenant, change: cluster::Change) -> Option<String> {
    let (config, id) = (alarms.config().clone(), change.cluster.cluster_id.clone());
    let write = alarms
        .log()
        .write(of, move |tx| incident::follow(tx, &config, &[change]));
    write.await.unwrap();
    let all = Query {
        page: 1,
        page_size: 100,
        ..Query::default()
    };
    let all = alarms.incidents(of, all).await.unwrap();
    let mut all = all.incidents.into_iter();
    all.find(|i| i.cluster_id.as_ref() == Some(&id))
        .map(|i| i.id)
}

async fn update(alarms: &Alarms, of: &Tenant, cluster: &Cluster) -> Option<String> {
    let grown = cluster::Change {
        cluster: cluster.clone(),
        merged: Vec::new(),
        is_new: false,
    };
    change(alarms, of, grown).await
}

async fn merge(alarms: &Alarms, of: &Tenant, into: &Cluster, from: &[&str]) {
    let grown = cluster::Change {
        cluster: into.clone(),
        merged: from.iter().map(|&id| id.to_owned()).collect(),
        is_new: false,
    };
    change(alarms, of, grown).await;
}

async fn is_over(alarms: &Alarms, of: &Tenant, cluster: &'static str) -> bool {
    let number = alarms.log().tenant(of).await.unwrap().number;
    alarms
        .log()
        .db()
        .read(move |conn| incident::is_over(conn, number, cluster))
        .await
        .unwrap()
}

async fn kinds(alarms: &Alarms, of: &Tenant, id: &str) -> Vec<String> {
    let entries = alarms.incident_entries(of, id).await.unwrap();
    entries.into_iter().map(|e| e.kind).collect()
}

fn new(title: &str, severity: &str) -> Value {
    json!({"title": title, "severity": severity})
}

async fn open(alarms: &Alarms, of: &Tenant, body: Value) -> (Incident, bool) {
    let new = NewIncident::read(body).unwrap();
    alarms.open_incident(of, new, ann()).await.unwrap()
}

async fn go(alarms: &Alarms, of: &Tenant, id: &str, status: &str) -> Result<Incident, Error> {
    let change = Change::read(json!({ "status": status })).unwrap();
    alarms.change_incident(of, id, change, ann()).await
}

on_each_backend! {
    async fn a_cluster_has_one_incident_that_follows_it_until_its_alarms_clear(bed: Bed) {
        let alarms = bed.open(Config::default()).await;
        let a = tenant("a");
        let one = ingest(&alarms, &a, "site-1", "minor", 0).await;
        let mut seen = cluster("c1", &["site-1"], std::slice::from_ref(&one), "minor");
        let id = update(&alarms, &a, &seen).await.unwrap();
        assert_eq!(update(&alarms, &a, &seen).await.as_ref(), Some(&id), "one a cluster");
        let opened = alarms.incident(&a, &id).await.unwrap();
        assert_eq!(opened.title, "Auto-created incident from cluster c1");
        assert_eq!((opened.severity, opened.status, opened.alarm_count), (Severity::Minor, Status::Open, 1));
        assert_eq!(opened.entity_id.as_deref(), Some("site-1"));
        let two = ingest(&alarms, &a, "cell-1", "major", 1).await;
        seen = cluster("c1", &["site-1", "cell-1"], &[one.clone(), two.clone()], "major");
        update(&alarms, &a, &seen).await;
        seen.severity = tidings_alarms::Severity::Warning;
        update(&alarms, &a, &seen).await;
        let grown = alarms.incident(&a, &id).await.unwrap();
        assert_eq!((grown.severity, grown.alarm_count, grown.alarm_ids.len()), (Severity::Major, 2, 2), "it only rises");
        go(&alarms, &a, &id, "acknowledged").await.unwrap();
        ingest(&alarms, &a, "site-1", "cleared", 20).await;
        assert_eq!(alarms.incident(&a, &id).await.unwrap().status, Status::Acknowledged);
        assert!(!is_over(&alarms, &a, "c1").await);
        ingest(&alarms, &a, "cell-1", "cleared", 30).await;
        let over = alarms.incident(&a, &id).await.unwrap();
        assert_eq!((over.status, over.resolved.unwrap().by), (Status::Resolved, "system".to_owned()));
        assert!(is_over(&alarms, &a, "c1").await);
        // What is over absorbs nothing.
        let three = ingest(&alarms, &a, "cell-2", "critical", 40).await;
        update(&alarms, &a, &cluster("c1", &["cell-2"], &[three], "critical")).await;
        assert_eq!(alarms.incident(&a, &id).await.unwrap().severity, Severity::Major);
        assert_eq!(kinds(&alarms, &a, &id).await, ["opened", "alarms_joined", "severity_raised", "acknowledged", "resolved"]);
        let told = events(&alarms, &a, "incidents").await;
        assert_eq!(told[0].0, "incident_created");
        assert_eq!(told[0].1["incident_id"], id.as_str());
        assert_eq!((&told[0].1["cluster_id"], &told[0].1["tenant_id"]), (&json!("c1"), &json!("a")));
        assert_eq!(told.last().unwrap().1["status"], "resolved");
        // All of it stands after a restart.
        drop(alarms);
        let alarms = bed.open(Config::default()).await;
        assert_eq!(alarms.incident(&a, &id).await.unwrap().status, Status::Resolved);
        assert!(matches!(alarms.incident(&tenant("b"), &id).await, Err(Error::NotFound { .. })));
    }
}

on_each_backend! {
    async fn what_is_too_mild_or_too_small_waits_until_it_is_not(bed: Bed) {
        let config = Config {
            incident_min_severity: tidings_alarms::Severity::Major,
            incident_min_alarms: 2,
            ..Config::default()
        };
        let alarms = bed.open(config).await;
        let a = tenant("a");
        let one = ingest(&alarms, &a, "s", "critical", 0).await;
        let two = ingest(&alarms, &a, "t", "critical", 0).await;
        let both = [one.clone(), two];
        assert_eq!(update(&alarms, &a, &cluster("c", &["s"], &both[..1], "critical")).await, None);
        assert_eq!(update(&alarms, &a, &cluster("c", &["s", "t"], &both, "minor")).await, None);
        assert!(update(&alarms, &a, &cluster("c", &["s", "t"], &both, "major")).await.is_some());
        assert!(events(&alarms, &a, "incidents").await.len() == 1);
    }
}

on_each_backend! {
    async fn a_cluster_whose_alarms_have_cleared_already_is_resolved_as_it_opens(bed: Bed) {
        let alarms = bed.open(Config::default()).await;
        let a = tenant("a");
        let one = ingest(&alarms, &a, "s", "major", 0).await;
        ingest(&alarms, &a, "s", "cleared", 1).await;
        let id = update(&alarms, &a, &cluster("c", &["s"], &[one], "major")).await.unwrap();
        assert_eq!(alarms.incident(&a, &id).await.unwrap().status, Status::Resolved);
        assert_eq!(kinds(&alarms, &a, &id).await, ["opened", "resolved"]);
    }
}

on_each_backend! {
    async fn with_approvals_a_clear_is_only_noted_and_gates_come_first(bed: Bed) {
        let alarms = bed.open(Config { require_approval: true, ..Config::default() }).await;
        let a = tenant("a");
        let one = ingest(&alarms, &a, "s", "major", 0).await;
        let id = update(&alarms, &a, &cluster("c", &["s"], std::slice::from_ref(&one), "major")).await.unwrap();
        ingest(&alarms, &a, "s", "cleared", 1).await;
        assert_eq!(alarms.incident(&a, &id).await.unwrap().status, Status::Open);
        assert!(kinds(&alarms, &a, &id).await.contains(&"alarms_cleared".to_owned()));
        for status in ["acknowledged", "in_progress"] {
            go(&alarms, &a, &id, status).await.unwrap();
        }
        for gate in [Gate::Sitrep, Gate::Action] {
            let refused = go(&alarms, &a, &id, "resolved").await;
            assert!(matches!(refused, Err(Error::Illegal { .. })), "{refused:?}");
            alarms.approve_incident(&a, &id, gate, (Some("seen".into()), ann())).await.unwrap();
        }
        let over = go(&alarms, &a, &id, "resolved").await.unwrap();
        assert_eq!(over.sitrep_approved.unwrap().by, "ann");
        let entries = alarms.incident_entries(&a, &id).await.unwrap();
        let trail: Vec<_> = entries.iter().filter_map(|e| e.audit()).collect();
        let approval = trail.iter().find(|e| e["action"] == "SITREP_APPROVED").unwrap();
        assert_eq!((&approval["actor"], &approval["action_type"]), (&json!("ann"), &json!("human")));
        assert_eq!(approval["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((&trail[0]["action"], &trail[0]["action_type"]), (&json!("ANOMALY_DETECTED"), &json!("automated")));
    }
}

on_each_backend! {
    async fn an_emergency_service_is_critical_for_good(bed: Bed) {
        let alarms = bed.open(Config::default()).await;
        let a = tenant("a");
        alarms.put_entity(&a, "e1", json!({"entity_type": "EMERGENCY_SERVICE", "external_id": "ext-1"})).await.unwrap();
        for body in [
            json!({"title": "by id", "severity": "minor", "entity_id": "my-Emergency-7"}),
            json!({"title": "by external id", "severity": "minor", "entity_external_id": "emergency_service_999"}),
            json!({"title": "by type", "severity": "warning", "entity_id": "e1"}),
            json!({"title": "by the type of what bears the external id", "severity": "warning", "entity_external_id": "ext-1"}),
        ] {
            let (incident, _) = open(&alarms, &a, body.clone()).await;
            assert_eq!(incident.severity, Severity::Critical, "{body}");
            assert!(incident.severity_reason.unwrap().to_uppercase().contains("EMERGENCY"));
        }
        let (plain, _) = open(&alarms, &a, json!({"title": "t", "severity": "minor", "entity_id": "e2"})).await;
        assert_eq!((plain.severity, plain.severity_reason), (Severity::Minor, None));
        let one = ingest(&alarms, &a, "s", "warning", 0).await;
        let two = ingest(&alarms, &a, "e1", "warning", 0).await;
        let id = update(&alarms, &a, &cluster("c", &["s"], std::slice::from_ref(&one), "warning")).await.unwrap();
        update(&alarms, &a, &emergency(cluster("c", &["s", "e1"], &[one.clone(), two], "warning"))).await;
        update(&alarms, &a, &cluster("c", &["s"], &[one], "warning")).await;
        let grown = alarms.incident(&a, &id).await.unwrap();
        assert_eq!((grown.severity, grown.is_emergency), (Severity::Critical, true));
        let three = ingest(&alarms, &a, "z-emergency", "warning", 0).await;
        let id = update(&alarms, &a, &emergency(cluster("d", &["unknown"], &[three], "warning"))).await.unwrap();
        assert!(alarms.incident(&a, &id).await.unwrap().is_emergency, "by the external id of an alarm");
    }
}

on_each_backend! {
    async fn merged_clusters_leave_one_incident_and_a_pointer(bed: Bed) {
        let alarms = bed.open(Config::default()).await;
        let a = tenant("a");
        let ids = [ingest(&alarms, &a, "s", "minor", 0).await, ingest(&alarms, &a, "t", "critical", 0).await];
        let stays = update(&alarms, &a, &cluster("c1", &["s"], &ids[..1], "minor")).await.unwrap();
        let goes = update(&alarms, &a, &cluster("c2", &["t"], &ids[1..], "critical")).await.unwrap();
        merge(&alarms, &a, &cluster("c1", &["s", "t"], &ids, "minor"), &["c2", "none"]).await;
        let (stays, goes) = (alarms.incident(&a, &stays).await.unwrap(), alarms.incident(&a, &goes).await.unwrap());
        assert_eq!((goes.status, goes.merged_into.as_ref()), (Status::Closed, Some(&stays.id)));
        assert_eq!((stays.status, stays.severity, stays.alarm_ids.len()), (Status::Open, Severity::Critical, 2));
        // One whose cluster goes into another without an incident goes on with that one.
        let three = ingest(&alarms, &a, "u", "major", 0).await;
        let kept = update(&alarms, &a, &cluster("c3", &["u"], std::slice::from_ref(&three), "major")).await.unwrap();
        merge(&alarms, &a, &cluster("c4", &["u", "v"], &[three], "major"), &["c3"]).await;
        assert_eq!(alarms.incident(&a, &kept).await.unwrap().cluster_id.as_deref(), Some("c4"));
    }
}

on_each_backend! {
    async fn the_same_title_and_entity_is_the_same_incident_while_it_lasts(bed: Bed) {
        let alarms = bed.open(Config::default()).await;
        let (a, b) = (tenant("a"), tenant("b"));
        let body = json!({"title": "Link down", "severity": "high", "entity_id": "s", "tenant_id": "b"});
        let (first, is_new) = open(&alarms, &a, body.clone()).await;
        assert!(is_new);
        let (again, is_new) = open(&alarms, &a, body.clone()).await;
        assert_eq!((again.id, is_new), (first.id.clone(), false));
        assert!(open(&alarms, &b, body.clone()).await.1, "another tenant's is another");
        assert!(open(&alarms, &a, json!({"title": "Link down", "severity": "high"})).await.1);
        for status in ["acknowledged", "in_progress", "resolved"] {
            go(&alarms, &a, &first.id, status).await.unwrap();
        }
        assert!(open(&alarms, &a, body).await.1, "one that is over is not it");
        for refused in [json!({}), new(" ", "high"), new("a\nb", "high"), new("t", "loud"), json!({"title": "t", "severity": "high", "x": 1})] {
            assert!(NewIncident::read(refused.clone()).is_err(), "{refused}");
        }
        let unknown = NewIncident::read(json!({"title": "t", "severity": "high", "cluster_id": "none"})).unwrap();
        assert!(matches!(alarms.open_incident(&a, unknown, ann()).await, Err(Error::Invalid(_))));
        assert!(matches!(go(&alarms, &b, &first.id, "closed").await, Err(Error::NotFound { .. })));
    }
}

on_each_backend! {
    async fn lists_are_filtered_sorted_searched_and_paged(bed: Bed) {
        let alarms = bed.open(Config::default()).await;
        let a = tenant("a");
        for (title, severity) in [("Alpha 100%", "minor"), ("beta_x", "critical"), ("Gamma", "major"), ("delta", "warning")] {
            open(&alarms, &a, new(title, severity)).await;
            bed.clock.advance(std::time::Duration::from_secs(1));
        }
        let first = Query { page: 1, page_size: 50, ..Query::default() };
        let found = async |query: Query| {
            let found = alarms.incidents(&a, query).await.unwrap();
            let titles: Vec<_> = found.incidents.into_iter().map(|i| i.title).collect();
            (titles.join(" "), found.total)
        };
        assert_eq!(found(first.clone()).await, ("delta Gamma beta_x Alpha 100%".into(), 4));
        let by = |sort, is_ascending| Query { sort, is_ascending, ..first.clone() };
        assert_eq!(found(by(Sort::Severity, false)).await.0, "beta_x Gamma Alpha 100% delta");
        assert_eq!(found(by(Sort::CreatedAt, true)).await.0, "Alpha 100% beta_x Gamma delta");
        let second = Query { page: 2, page_size: 3, ..Query::default() };
        assert_eq!(found(second).await, ("Alpha 100%".into(), 4));
        for (text, titles) in [("ALPHA", "Alpha 100%"), ("100%", "Alpha 100%"), ("0%%", ""), ("_", "beta_x"), ("'", "")] {
            assert_eq!(found(Query { search: Some(text.into()), ..first.clone() }).await.0, titles, "{text}");
        }
        let severe = Query { severities: vec![Severity::Critical, Severity::Major], ..first.clone() };
        assert_eq!(found(severe).await.1, 2);
        let id = alarms.incidents(&a, first.clone()).await.unwrap().incidents[0].id.clone();
        go(&alarms, &a, &id, "acknowledged").await.unwrap();
        let without = Query { without: vec![Status::Acknowledged], ..first.clone() };
        assert_eq!(found(without).await.1, 3);
        let taken = Query { statuses: vec![Status::Acknowledged, Status::Closed], ..first };
        assert_eq!(found(taken).await, ("delta".into(), 1));
        assert_eq!(alarms.incidents(&tenant("b"), Query { page: 1, page_size: 50, ..Query::default() }).await.unwrap().total, 0);
    }
}

on_each_backend! {
    async fn impact_and_report_say_what_the_facts_say(bed: Bed) {
        let alarms = bed.open(Config::default()).await;
        let a = tenant("a");
        for (id, body) in [
            ("core", json!({"entity_type": "ROUTER", "revenue_weight": 10, "sla_tier": "GOLD", "name": "Core 1"})),
            ("site", json!({"depends_on": ["core"], "revenue_weight": 2.5, "sla_tier": "SILVER"})),
            ("cell", json!({"part_of": ["site"], "sla_tier": "SILVER"})),
            ("other", json!({"sla_tier": "BRONZE"})),
        ] {
            alarms.put_entity(&a, id, body).await.unwrap();
        }
        alarms.put_customer(&a, "far", json!({"entity_ids": ["cell"]})).await.unwrap();
        alarms.put_customer(&a, "away", json!({"entity_ids": ["other"]})).await.unwrap();
        let one = ingest(&alarms, &a, "core", "critical", 0).await;
        let id = update(&alarms, &a, &cluster("c", &["core"], &[one], "critical")).await.unwrap();
        let impact = alarms.incident_impact(&a, &id).await.unwrap().json();
        let expected = json!({
            "entities": ["core", "site", "cell"], "customers": ["far"], "revenue_weight": 12.5,
            "sla_tiers": {"GOLD": 1, "SILVER": 2},
        });
        assert_eq!(impact, expected);
        let (_, report) = alarms.generate_sitrep(&a, &id, ann()).await.unwrap();
        let at = |secs: i64| Timestamp::from_secs(START + secs).to_string()[..16].replace('T', " ");
        for part in [
            format!("Incident {id}, severity critical (P1), status open."),
            "What: 1 alarm occurrence on 1 entity; 1 of 1 alarm still raised (1 LINK_DOWN).".into(),
            format!("Since: {} UTC.", at(0)),
            "Probable root: Core 1 (core, ROUTER), with 88 % confidence.".into(),
            "Affected: 3 entities, 1 customer, revenue weight 12.5; SLA tiers: 1 GOLD, 2 SILVER.".into(),
            format!("- {} UTC, opened by system: ", at(0)),
            "- Acknowledge the incident".into(),
            "- Look at Core 1 (core, ROUTER) first.".into(),
        ] {
            assert!(report.text.contains(&part), "{part} is not in\n{}", report.text);
        }
        let (again, more) = (alarms.sitrep(&a, &id).await.unwrap(), alarms.sitrep(&a, &id).await.unwrap());
        assert_eq!(again.text, more.text, "the same facts make the same words");
        assert!(kinds(&alarms, &a, &id).await.contains(&"sitrep_generated".to_owned()));
        // By hand, and of nothing that is known.
        let (hand, _) = open(&alarms, &a, new("By hand", "minor")).await;
        let report = alarms.sitrep(&a, &hand.id).await.unwrap();
        assert!(report.text.contains("opened by hand; no alarms belong to it"), "{}", report.text);
        assert!(report.text.contains("Probable root: not known."));
        let _: &sitrep::Sitrep = &report;
    }
}

on_each_backend! {
    async fn a_scorecard_adds_up_what_is_stored(bed: Bed) {
        let alarms = bed.open(Config::default()).await;
        let a = tenant("a");
        let empty = alarms.scorecard(&a, None, None).await.unwrap().json();
        for name in ["mtta_seconds", "mttr_seconds", "open_by_severity", "alarm_count", "cluster_count", "incident_count", "noise_reduction_pct"] {
            assert!(empty[name].is_null(), "{name}");
        }
        alarms.put_entity(&a, "s", json!({"entity_type": "SITE"})).await.unwrap();
        alarms.put_entity(&a, "r", json!({"entity_type": "ROUTER"})).await.unwrap();
        let one = ingest(&alarms, &a, "s", "major", -100).await;
        let id = update(&alarms, &a, &cluster("c", &["s"], std::slice::from_ref(&one), "major")).await.unwrap();
        bed.clock.advance(std::time::Duration::from_secs(30));
        go(&alarms, &a, &id, "acknowledged").await.unwrap();
        bed.clock.advance(std::time::Duration::from_secs(70));
        ingest(&alarms, &a, "s", "cleared", 100).await;
        let [from, to] = [-300, 500].map(|secs| Some(Timestamp::from_secs(START + secs)));
        bed.clock.advance(std::time::Duration::from_secs(400));
        let card = alarms.scorecard(&a, from, to).await.unwrap();
        assert_eq!((card.mtta_seconds, card.mttr_seconds), (Some(30.0), Some(100.0)));
        assert_eq!((card.alarm_count, card.incident_count), (Some(1), Some(1)));
        assert_eq!(card.availability["SITE"], Some(75.0));
        assert_eq!(card.availability["ROUTER"], None);
        assert_eq!(card.open_by_severity.unwrap()["major"], 0);
    }
}
