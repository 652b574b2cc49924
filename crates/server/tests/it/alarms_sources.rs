//! Alarms from systems that are not ours: Alertmanager, Prometheus, TMF642.

use std::time::Duration;

use serde_json::{Value, json};

use crate::alarms_ingest::{ago, operator};
use crate::support::{Request, Server, Setup, eventually};

fn list(server: &Server, token: &str, query: &str) -> Value {
    server
        .get(&format!("/api/v1/alarms?{query}"), Some(token))
        .json()
}

#[test]
fn alertmanagers_webhook_raises_and_resolves() {
    let server = Setup::default().start();
    let token = operator("a");
    let alert = |status: &str, ends: &str| {
        json!({
            "version": "4", "groupKey": "{}:{alertname=\"Down\"}", "truncatedAlerts": 0, "status": status, "receiver": "tidings",
            "groupLabels": {"alertname": "Down"}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://am:9093",
            "alerts": [{"status": status, "labels": {"alertname": "Down", "instance": "n1:9100", "job": "node", "severity": "critical"},
                "annotations": {"summary": "n1 is down"}, "startsAt": "2026-02-23T19:20:00.000Z", "endsAt": ends,
                "generatorURL": "http://p:9090/graph", "fingerprint": "2b8e"}]
        })
    };
    let path = "/api/v1/alarms/ingest/alertmanager";
    let fired = server.post(path, Some(&token), &alert("firing", "0001-01-01T00:00:00Z"));
    assert_eq!((fired.status, fired.body.as_str()), (200, "{}"));
    let again = server.post(path, Some(&token), &alert("firing", "0001-01-01T00:00:00Z"));
    assert_eq!(again.status, 200);
    let raised = list(&server, &token, "condition=raised")["alarms"][0].clone();
    assert_eq!(
        (&raised["entity_id"], &raised["alarm_type"]),
        (&json!("n1:9100"), &json!("Down"))
    );
    assert_eq!(
        (&raised["specific_problem"], &raised["severity"]),
        (&json!("job=node"), &json!("critical"))
    );
    assert_eq!(
        (
            &raised["raise_count"],
            &raised["attributes"]["annotations"]["summary"]
        ),
        (&json!(1), &json!("n1 is down"))
    );
    for _ in 0..2 {
        server.post(path, Some(&token), &alert("resolved", &ago(5)));
        assert_eq!(list(&server, &token, "condition=cleared")["total"], 1);
        // It resolves what it has not heard of for a while, and says once more that it is there.
        server.post(path, Some(&token), &alert("firing", "0001-01-01T00:00:00Z"));
        assert_eq!(list(&server, &token, "condition=raised")["total"], 1);
    }
    server.post(path, Some(&token), &alert("resolved", &ago(4)));
    assert_eq!(list(&server, &token, "condition=cleared")["total"], 1);
    server
        .post(path, Some(&token), &json!({ "version": "4" }))
        .is_problem(422, Some("alerts"));
    let bad =
        json!({ "alerts": [{ "labels": { "alertname": "A" } }, { "labels": { "job": "x" } }] });
    let bad = server.post(path, Some(&token), &bad);
    bad.is_problem(422, Some("alerts.labels"));
    assert_eq!(
        bad.json()["detail"][0]["loc"],
        json!(["body", "alerts", 1, "labels"])
    );
    assert_eq!(list(&server, &token, "")["total"], 1);
}

#[test]
fn prometheus_alerts_end_unless_they_are_refreshed() {
    let server = Setup::default().start();
    let token = operator("a");
    let send = |ends: i64| {
        let alert = json!([{"labels": {"alertname": "Slow", "job": "api", "severity": "info"}, "annotations": {},
            "startsAt": "2026-02-23T19:20:00Z", "endsAt": ago(-ends), "generatorURL": "http://p"}]);
        let answer = server.post("/api/v2/alerts", Some(&token), &alert);
        assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    };
    send(1);
    let raised = list(&server, &token, "condition=raised")["alarms"][0].clone();
    assert_eq!(
        (&raised["severity"], &raised["entity_id"]),
        (&json!("warning"), &json!("api"))
    );
    eventually("it ends", || {
        list(&server, &token, "condition=cleared")["total"] == 1
    });
    // Its source was silent for too long, and says now that it is still there.
    send(600);
    assert_eq!(list(&server, &token, "condition=raised")["total"], 1);
    send(-1);
    assert_eq!(list(&server, &token, "condition=cleared")["total"], 1);
    assert_eq!(
        server
            .post("/api/v2/alerts", Some(&token), &json!([]))
            .status,
        200
    );
    server
        .post("/api/v2/alerts", Some(&token), &json!([{}]))
        .is_problem(422, Some("labels"));
}

#[test]
fn tmf642_as_its_clients_know_it() {
    let server = Setup::default().start();
    let token = operator("a");
    let base = "/tmf-api/alarmManagement/v4/alarm";
    let body = json!({
        "alarmType": "communicationsAlarm", "perceivedSeverity": "major", "alarmedObject": {"id": "cell-9"},
        "alarmRaisedTime": ago(60), "probableCause": "thresholdCrossed", "specificProblem": "LINK_DOWN", "sourceSystemId": "ems"
    });
    let made = server.post(base, Some(&token), &body);
    assert_eq!(
        (made.status, &made.json()["status"]),
        (201, &json!("persisted"))
    );
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(made.header("location"), format!("{base}/{id}"));
    let again = server.post(base, Some(&token), &body).json();
    assert_eq!(
        again,
        json!({ "status": "already_exists", "id": id, "idempotent": true })
    );
    let listed = server.get(
        &format!("{base}?offset=0&limit=10&ackState=unacknowledged"),
        Some(&token),
    );
    assert_eq!(
        (
            listed.header("x-total-count"),
            listed.json().as_array().unwrap().len()
        ),
        ("1", 1)
    );
    let path = format!("{base}/{id}");
    let one = server.get(&path, Some(&token)).json();
    assert_eq!(
        (&one["alarmedObject"]["id"], &one["ackState"], &one["state"]),
        (&json!("cell-9"), &json!("unacknowledged"), &json!("raised"))
    );
    let patch = |body: &str| {
        server.request(&Request {
            token: Some(&token),
            headers: vec![("Content-Type", "application/json".to_owned())],
            body: body.as_bytes().to_vec(),
            ..Request::new("PATCH", &path)
        })
    };
    let acknowledged = patch(r#"{"ackState":"acknowledged","ackUserId":"somebody else"}"#).json();
    assert_eq!(
        (&acknowledged["ackState"], &acknowledged["ackUserId"]),
        (&json!("acknowledged"), &json!("op"))
    );
    patch(r#"{"ackState":"perhaps"}"#).is_problem(422, Some("ackState"));
    patch(r#"{"perceivedSeverity":"minor"}"#).is_problem(422, Some("ackState"));
    for (query, total) in [
        ("ackState=unacknowledged", "0"),
        ("ackState=acknowledged", "1"),
        ("perceivedSeverity=major", "1"),
        ("perceivedSeverity=cleared", "0"),
    ] {
        assert_eq!(
            server
                .get(&format!("{base}?{query}"), Some(&token))
                .header("x-total-count"),
            total,
            "{query}"
        );
    }
    assert_eq!(
        patch(r#"{"ackState":"unacknowledged"}"#).json()["ackUserId"],
        Value::Null
    );
    server
        .post(base, Some(&token), &json!({ "alarmType": "x" }))
        .is_problem(422, Some("alarmedObject"));
    assert_eq!(
        server.get(&format!("{base}?offset=1"), Some(&token)).json(),
        json!([])
    );
}

#[test]
fn time_moves_what_ends_by_itself() {
    // The clock stands at the start: times of the alert are those of the server.
    let server = Setup::default().manual_clock().start();
    let token = operator("a");
    let now = ago(0);
    let alert = json!([{"labels": {"alertname": "Slow", "job": "api"}, "startsAt": now, "endsAt": ago(-240)}]);
    assert_eq!(
        server.post("/api/v2/alerts", Some(&token), &alert).status,
        200
    );
    server.advance(Duration::from_secs(100));
    assert_eq!(list(&server, &token, "condition=raised")["total"], 1);
    server.advance(Duration::from_secs(200));
    eventually("it ends", || {
        list(&server, &token, "condition=cleared")["total"] == 1
    });
}
