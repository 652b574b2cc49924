//! Clusters over HTTP: as alarms come in, on demand, over a `kill -9`, and tenant by tenant.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Server, Setup, admin, eventually, token_of};

const CLUSTERS: &str = "/api/v1/clusters";

fn alarm(entity: &str, kind: &str, second: i64) -> Value {
    let at = format!("2026-02-23T19:{:02}:{:02}Z", second / 60, second % 60);
    json!({"entity_id": entity, "alarm_type": kind, "severity": "major", "raised_at": at, "source_system": "t"})
}

#[track_caller]
fn ingest(server: &Server, token: &str, alarms: &[Value]) {
    let answer = server.post("/api/v1/alarms/ingest/batch", Some(token), &json!(alarms));
    assert_eq!(answer.status, 202, "{}", answer.body);
}

fn clusters(server: &Server, token: &str) -> Vec<Value> {
    let answer = server.get(CLUSTERS, Some(token));
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["clusters"].as_array().unwrap().clone()
}

fn clustered(server: &Server, token: &str, count: u64) -> Vec<Value> {
    eventually("all are in clusters", || {
        if server.setup.is_clock_manual {
            server.advance(Duration::from_secs(1));
        }
        let sum: u64 = clusters(server, token)
            .iter()
            .map(|c| c["alarm_count"].as_u64().unwrap())
            .sum();
        sum == count
    });
    clusters(server, token)
}

fn parts(clusters: &[Value]) -> Vec<Vec<String>> {
    let mut parts: Vec<Vec<String>> = clusters
        .iter()
        .map(|c| {
            let ids = c["event_ids"].as_array().unwrap().iter();
            let mut ids: Vec<String> = ids.map(|id| id.as_str().unwrap().to_owned()).collect();
            ids.sort_unstable();
            ids
        })
        .collect();
    parts.sort_unstable();
    parts
}

#[test]
fn what_streams_in_is_what_is_correlated_on_demand_also_over_a_kill() {
    let server = Setup::default().start();
    let root = admin();
    let entities: Vec<Value> = (1..=3)
        .map(|n| json!({"id": format!("cell-{n}"), "part_of": ["site"]}))
        .collect();
    let answer = server.post("/api/v1/entities/bulk", Some(&root), &json!(entities));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let first = [
        alarm("cell-2", "DOWN", 2),
        alarm("site", "POWER", 0),
        alarm("lone", "FAN", 1),
    ];
    ingest(&server, &root, &first);
    clustered(&server, &root, 3);
    ingest(&server, &root, &[alarm("cell-1", "DOWN", 4)]);
    let (folder, setup) = server.kill();
    let server = Server::start(folder, setup);
    ingest(
        &server,
        &root,
        &[alarm("cell-3", "DOWN", 5), alarm("cell-3", "DOWN", 700)],
    );
    let found = clustered(&server, &root, 6);
    let large = found.iter().find(|c| c["alarm_count"] == 4).unwrap();
    assert_eq!(large["root_cause_entity_id"], "site");
    assert_eq!(large["edges"].as_array().unwrap().len(), 3);
    assert_eq!(large["edges"][0]["rule"], "dependency");
    let answer = server.post("/api/v1/alarms/correlate", Some(&root), &json!({}));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let demanded = answer.json();
    assert_eq!(
        parts(demanded["clusters"].as_array().unwrap()),
        parts(&found)
    );
    assert_eq!(
        (&demanded["alarm_count"], &demanded["noise_reduction_pct"]),
        (&json!(6), &json!(50.0))
    );
    let id = large["cluster_id"].as_str().unwrap();
    let one = server.get(&format!("{CLUSTERS}/{id}"), Some(&root)).json();
    assert_eq!(one["event_ids"], large["event_ids"]);
    assert_eq!(one["open_alarm_count"], 4);
    let listed = server
        .get("/api/v1/alarms?entity_id=site", Some(&root))
        .json();
    assert_eq!(listed["alarms"][0]["cluster_id"], id);
}

#[test]
fn alarms_in_the_body_are_correlated_and_forgotten() {
    let server = Setup::default().start();
    let root = admin();
    let mut alarms: Vec<Value> = [0, 300, 601].iter().map(|&s| alarm("e", "T", s)).collect();
    for (n, alarm) in alarms.iter_mut().enumerate() {
        alarm["id"] = json!(format!("a{n}"));
    }
    let answer = server.post(
        "/api/v1/alarms/correlate",
        Some(&root),
        &json!({ "alarms": alarms }),
    );
    let body = answer.json();
    assert_eq!(
        body["clusters"].as_array().unwrap().len(),
        2,
        "{}",
        answer.body
    );
    assert_eq!(body["clusters"][0]["event_ids"], json!(["a0", "a1"]));
    assert_eq!(body["noise_reduction_pct"], 33.33);
    assert!(clusters(&server, &root).is_empty());
    alarms[1]["severity"] = json!("bad");
    let answer = server.post(
        "/api/v1/alarms/correlate",
        Some(&root),
        &json!({ "alarms": alarms }),
    );
    answer.is_problem(422, Some("alarms.severity"));
    assert_eq!(
        answer.json()["detail"][0]["loc"],
        json!(["body", "alarms", 1, "severity"])
    );
    for (body, field) in [
        (json!({"from": 7}), Some("from")),
        (json!({"other": 1}), Some("other")),
        (json!([]), Some("")),
    ] {
        server
            .post("/api/v1/alarms/correlate", Some(&root), &body)
            .is_problem(422, field);
    }
}

#[test]
fn a_foreign_cluster_is_not_there() {
    let server = Setup::default().start();
    let root = admin();
    ingest(&server, &root, &[alarm("e", "T", 0)]);
    let id = clustered(&server, &root, 1)[0]["cluster_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let other = token_of("b", "x", &json!({"roles": ["admin"]}));
    server
        .get(&format!("{CLUSTERS}/{id}"), Some(&other))
        .is_problem(404, None);
    assert!(clusters(&server, &other).is_empty());
    let demanded = server
        .post("/api/v1/alarms/correlate", Some(&other), &json!({}))
        .json();
    assert_eq!(demanded["alarm_count"], 0);
    assert_eq!(server.get(CLUSTERS, None).status, 401);
}

#[test]
fn an_alarm_every_four_minutes_is_published_within_the_bound_and_a_bad_event_stops_nothing() {
    let server = Setup::default().manual_clock().start();
    let root = admin();
    server.publish(&root, "alarms", &json!({"event_id": 1}));
    let event = json!({"topic": "alarms", "type": "alarm_ingested", "data": {"event_id": 1}});
    assert_eq!(
        server.post("/api/v1/events", Some(&root), &event).status,
        202
    );
    for n in 0..4u64 {
        let second = i64::try_from(n * 240).unwrap();
        ingest(&server, &root, &[alarm("e", "T", second)]);
        server.advance(Duration::from_secs(5));
        eventually("published", || {
            let found = clusters(&server, &root);
            found.len() == 1 && found[0]["alarm_count"] == n + 1
        });
        server.advance(Duration::from_secs(235));
    }
    eventually("nothing waits", || {
        server.metric("tidings_worker_lag_events{worker=\"correlation\"}") == 0.0
    });
    let letters = server.get("/api/v1/dead-letters", Some(&root));
    assert!(letters.body.contains("correlation"), "{}", letters.body);
}
