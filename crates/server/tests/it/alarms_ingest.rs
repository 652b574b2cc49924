//! Alarms from outside: in by every form, out by lists, moved by people; wrong input; tenants apart.

use serde_json::{Value, json};

use crate::support::{Answer, Request, Server, Setup, token_of};

/// Who may read and write alarms of a tenant.
pub(crate) fn operator(tenant: &str) -> String {
    token_of(tenant, "op", &json!({ "role": "operator" }))
}

/// A time so many seconds before now.
pub(crate) fn ago(secs: i64) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let at = i64::try_from(now.as_micros()).unwrap() - secs * 1_000_000;
    tidings_core::clock::Timestamp::from_micros(at).to_string()
}

/// An alarm that was raised so many seconds ago.
pub(crate) fn alarm(entity: &str, severity: &str, secs: i64) -> Value {
    json!({
        "entity_id": entity, "alarm_type": "LINK_DOWN", "severity": severity,
        "raised_at": ago(secs), "source_system": "nms"
    })
}

const INGEST: &str = "/api/v1/alarms/ingest";

fn with(mut value: Value, change: Value) -> Value {
    let members = value.as_object_mut().unwrap();
    members.extend(change.as_object().unwrap().clone());
    value
}

fn send(server: &Server, token: &str, path: &str, content_type: &str, body: &str) -> Answer {
    server.request(&Request {
        token: Some(token),
        headers: vec![("Content-Type", content_type.to_owned())],
        body: body.as_bytes().to_vec(),
        ..Request::new("POST", path)
    })
}

#[test]
fn one_alarm_in_is_one_alarm_out_and_a_repeat_is_the_same() {
    let server = Setup::default().start();
    let token = operator("a");
    let body = with(
        alarm("cell-001", "CRITICAL", 60),
        json!({ "tenant_id": "evil", "entity_external_id": "X1", "vendor_code": 7 }),
    );
    let first = server.post(INGEST, Some(&token), &body);
    assert_eq!(first.status, 202, "{}", first.body);
    let said = first.json();
    assert_eq!(
        (&said["tenant_id"], &said["status"]),
        (&json!("a"), &json!("accepted"))
    );
    assert_eq!(
        first.header("x-event-id"),
        said["event_id"].as_str().unwrap()
    );
    let again = server.post(INGEST, Some(&token), &body).json();
    assert_eq!(again["event_id"], said["event_id"]);
    assert_eq!(again["status"], "accepted (idempotent)");
    let path = format!("/api/v1/alarms/{}", said["alarm_id"].as_str().unwrap());
    let shown = server.get(&path, Some(&token)).json();
    assert_eq!(
        (
            &shown["severity"],
            &shown["condition"],
            &shown["operator_state"]
        ),
        (&json!("critical"), &json!("raised"), &json!("none"))
    );
    assert_eq!(
        (&shown["raise_count"], &shown["attributes"]),
        (&json!(1), &json!({ "vendor_code": 7 }))
    );
    assert_eq!(shown["raised_at"], body["raised_at"]);
    // The event is on the native topic, under that id.
    let history = server
        .get("/api/v1/events?topic=alarms", Some(&token))
        .json();
    let event = &history["events"][0];
    assert_eq!(
        (&event["id"], &event["type"]),
        (&said["event_id"], &json!("alarm_ingested"))
    );
    for (member, value) in [
        ("event_id", &said["event_id"]),
        ("alarm_id", &said["alarm_id"]),
        ("tenant_id", &json!("a")),
        ("entity_external_id", &json!("X1")),
        ("specific_problem", &Value::Null),
    ] {
        assert_eq!(&event["data"][member], value, "{member}");
    }
    // It is still there after kill -9, and so is the first answer.
    let (folder, setup) = server.kill();
    let server = Server::start(folder, setup);
    let again = server.post(INGEST, Some(&token), &body).json();
    assert_eq!(again["event_id"], said["event_id"]);
    assert_eq!(server.get(&path, Some(&token)).json()["raise_count"], 1);
}

#[test]
fn many_at_once_as_array_lines_and_cloud_events() {
    let server = Setup::default().start();
    let token = operator("a");
    let batch = format!("{INGEST}/batch");
    let bodies: Vec<_> = (0..2_500)
        .map(|n| alarm(&format!("c{n}"), "minor", 60))
        .collect();
    let taken = server.post(&batch, Some(&token), &json!(bodies));
    assert_eq!(taken.status, 202, "{}", taken.body);
    let taken = taken.json();
    assert_eq!(
        (&taken["count"], &taken["idempotent_count"]),
        (&json!(2_500), &json!(0))
    );
    assert_eq!(taken["event_ids"].as_array().unwrap().len(), 2_500);
    let lines: String = bodies.iter().take(3).map(|b| format!("{b}\n\n")).collect();
    let again = send(&server, &token, &batch, "application/x-ndjson", &lines).json();
    assert_eq!(
        (&again["count"], &again["idempotent_count"]),
        (&json!(3), &json!(3))
    );
    assert_eq!(again["event_ids"][2], taken["event_ids"][2]);
    let one = server.post(&batch, Some(&token), &bodies[0]).json();
    assert_eq!(one["event_ids"][0], taken["event_ids"][0]);
    let event = |id: &str, data: &Value| json!({ "specversion": "1.0", "id": id, "source": "/nms", "type": "alarm", "data": data });
    let cloud = alarm("cloud", "major", 30);
    let structured = send(
        &server,
        &token,
        INGEST,
        "application/cloudevents+json",
        &event("1", &cloud).to_string(),
    );
    assert_eq!(
        structured.json()["status"],
        "accepted",
        "{}",
        structured.body
    );
    let binary = |body: &Value| {
        let headers = [
            ("Content-Type", "application/json"),
            ("ce-specversion", "1.0"),
            ("ce-id", "1"),
            ("ce-source", "/nms"),
            ("ce-type", "alarm"),
        ];
        server.request(&Request {
            token: Some(&token),
            headers: headers.map(|(name, value)| (name, value.to_owned())).into(),
            body: body.to_string().into_bytes(),
            ..Request::new("POST", INGEST)
        })
    };
    assert_eq!(
        binary(&cloud).json()["event_id"],
        structured.json()["event_id"]
    );
    assert_eq!(binary(&alarm("other", "major", 30)).status, 409);
    let several = json!([
        event("1", &cloud),
        event("2", &alarm("cloud2", "major", 30))
    ]);
    let several = send(
        &server,
        &token,
        INGEST,
        "application/cloudevents-batch+json",
        &several.to_string(),
    );
    assert_eq!(several.json()["idempotent_count"], 1, "{}", several.body);
    let list = server.get("/api/v1/alarms?limit=1", Some(&token)).json();
    assert_eq!(list["total"], 2_502);
    assert!(list["cursor"].is_string());
}

#[test]
fn wrong_input_is_named_and_nothing_of_it_is_stored() {
    let server = Setup::default().start();
    let token = operator("a");
    let wrong = |change: Value, member: &str| {
        let answer = server.post(INGEST, Some(&token), &with(alarm("c", "major", 60), change));
        answer.is_problem(422, Some(member));
        assert_eq!(answer.json()["detail"][0]["loc"], json!(["body", member]));
    };
    wrong(json!({ "severity": "loud" }), "severity");
    wrong(json!({ "severity": 5 }), "severity");
    wrong(json!({ "raised_at": "yesterday" }), "raised_at");
    wrong(json!({ "raised_at": "2026-02-23T19:20:00" }), "raised_at");
    wrong(json!({ "raised_at": ago(-900) }), "raised_at");
    wrong(json!({ "raised_at": 1_790_000_000 }), "raised_at");
    for member in [
        "entity_id",
        "alarm_type",
        "severity",
        "raised_at",
        "source_system",
    ] {
        wrong(json!({ member: null }), member);
        wrong(json!({ member: "" }), member);
    }
    wrong(json!({ "entity_id": "x\u{0}y" }), "entity_id");
    wrong(json!({ "entity_id": "x".repeat(2_000) }), "entity_id");
    wrong(json!({ "attributes": "x" }), "attributes");
    // One bad alarm of many: which, and none of them is stored.
    let batch = json!([
        alarm("c1", "major", 60),
        alarm("c2", "major", 60),
        alarm("c3", "loud", 60)
    ]);
    let answer = server.post(INGEST, Some(&token), &batch);
    answer.is_problem(422, Some("severity"));
    let said = answer.json();
    assert_eq!(
        (&said["index"], &said["detail"][0]["loc"]),
        (&json!(2), &json!(["body", 2, "severity"]))
    );
    let lines = format!(
        "{}\n\n{}\n",
        alarm("c1", "major", 60),
        json!({ "entity_id": "c" })
    );
    let answer = send(&server, &token, INGEST, "application/x-ndjson", &lines);
    answer.is_problem(422, Some("alarm_type"));
    assert_eq!(answer.json()["index"], 1);
    let nan = alarm("c", "major", 60)
        .to_string()
        .replace("\"nms\"", "NaN");
    send(&server, &token, INGEST, "application/json", &nan).is_problem(400, None);
    send(&server, &token, INGEST, "application/json", "[").is_problem(400, None);
    send(&server, &token, INGEST, "application/json", "7").is_problem(422, Some(""));
    send(&server, &token, INGEST, "application/json", "[]").is_problem(422, Some(""));
    send(&server, &token, INGEST, "text/plain", "{}").is_problem(415, Some("Content-Type"));
    let deep = format!("{{\"attributes\":{}{}}}", "[".repeat(500), "]".repeat(500));
    send(&server, &token, INGEST, "application/json", &deep).is_problem(400, None);
    let large = with(
        alarm("c", "major", 60),
        json!({ "note": "x".repeat(600 * 1024) }),
    );
    server
        .post(INGEST, Some(&token), &large)
        .is_problem(413, None);
    let list = server.get("/api/v1/alarms", Some(&token)).json();
    assert_eq!((&list["total"], &list["cursor"]), (&json!(0), &Value::Null));
    assert_eq!(
        server
            .get("/api/v1/events?topic=alarms", Some(&token))
            .json()["events"],
        json!([])
    );
    // Who may not.
    assert_eq!(server.post(INGEST, None, &json!({})).status, 401);
    let viewer = token_of("a", "v", &json!({ "role": "viewer" }));
    server
        .post(INGEST, Some(&viewer), &alarm("c", "major", 60))
        .is_problem(403, None);
    let homeless = token_of("a", "v", &json!({ "role": "operator", "tenant_id": null }));
    assert_eq!(server.post(INGEST, Some(&homeless), &json!({})).status, 403);
    for (query, name) in [
        ("condition=up", "condition"),
        ("severity=cleared", "severity"),
        ("operator_state=x", "operator_state"),
        ("since=now", "since"),
        ("limit=1001", "limit"),
        ("after=x", "after"),
    ] {
        server
            .get(&format!("/api/v1/alarms?{query}"), Some(&token))
            .is_problem(400, Some(name));
    }
}

#[test]
fn people_acknowledge_clear_and_shelve() {
    let server = Setup::default().start();
    let token = operator("a");
    let id = server
        .post(INGEST, Some(&token), &alarm("c1", "major", 60))
        .json()["alarm_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let operate = |verb: &str, body: &Value| {
        server.post(&format!("/api/v1/alarms/{id}/{verb}"), Some(&token), body)
    };
    let acknowledged = operate("acknowledge", &json!({})).json();
    assert_eq!(
        (
            &acknowledged["operator_state"],
            &acknowledged["acknowledged_by"]
        ),
        (&json!("acknowledged"), &json!("op"))
    );
    let other = token_of("a", "op2", &json!({ "role": "operator" }));
    let again = server
        .post(
            &format!("/api/v1/alarms/{id}/acknowledge"),
            Some(&other),
            &json!({}),
        )
        .json();
    assert_eq!(again["acknowledged_by"], "op", "the first one stands");
    assert_eq!(
        operate("unacknowledge", &json!({})).json()["acknowledged_at"],
        Value::Null
    );
    operate("shelve", &json!({ "expires_at": ago(-600) })).is_problem(422, Some("reason"));
    operate("shelve", &json!({ "reason": "works" })).is_problem(422, Some("expires_at"));
    operate(
        "shelve",
        &json!({ "reason": "works", "expires_at": ago(5) }),
    )
    .is_problem(422, Some("expires_at"));
    operate(
        "shelve",
        &json!({ "reason": "works", "expires_at": ago(-600), "x": 1 }),
    )
    .is_problem(422, Some("x"));
    let shelved = operate(
        "shelve",
        &json!({ "reason": "works", "expires_at": ago(-600) }),
    )
    .json();
    assert_eq!(
        (
            &shelved["operator_state"],
            &shelved["shelved_by"],
            &shelved["shelve_reason"]
        ),
        (&json!("shelved"), &json!("op"), &json!("works"))
    );
    let list = |query: &str| {
        server
            .get(&format!("/api/v1/alarms?{query}"), Some(&token))
            .json()
    };
    assert_eq!(
        list("operator_state=shelved&condition=raised&severity=major")["total"],
        1
    );
    assert_eq!(list("operator_state=none")["total"], 0);
    assert_eq!(
        operate("unshelve", &json!({})).json()["operator_state"],
        "none"
    );
    let cleared = operate("clear", &json!({})).json();
    assert_eq!(
        (&cleared["condition"], &cleared["severity"]),
        (&json!("cleared"), &json!("major"))
    );
    assert_eq!(list("condition=raised")["total"], 0);
    // Raised again: it has flapped once.
    let back = server.post(INGEST, Some(&token), &alarm("c1", "major", -2));
    assert_eq!(back.status, 202, "{}", back.body);
    let shown = list("search=C1")["alarms"][0].clone();
    assert_eq!(
        (
            &shown["flap_count"],
            &shown["condition"],
            &shown["raise_count"]
        ),
        (&json!(1), &json!("raised"), &json!(2))
    );
    let kinds: Vec<_> = server
        .get("/api/v1/events?topic=alarms", Some(&token))
        .json()["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        kinds,
        [
            "alarm_ingested",
            "alarm_acknowledged",
            "alarm_unacknowledged",
            "alarm_shelved",
            "alarm_unshelved",
            "alarm_cleared",
            "alarm_ingested"
        ]
    );
    // A clear before its raise, or of an unknown alarm, is kept.
    let unknown = server.post(INGEST, Some(&token), &alarm("new", "cleared", 10));
    assert_eq!(unknown.status, 202);
    server.post(INGEST, Some(&token), &alarm("new", "critical", 20));
    let kept = list("entity_id=new")["alarms"][0].clone();
    assert_eq!(
        (&kept["condition"], &kept["severity"]),
        (&json!("cleared"), &json!("critical"))
    );
}

#[test]
fn a_shelving_ends_by_itself_also_after_a_restart() {
    let server = Setup::default().start();
    let token = operator("a");
    let id = server
        .post(INGEST, Some(&token), &alarm("c1", "major", 60))
        .json()["alarm_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/api/v1/alarms/{id}");
    let body = json!({ "reason": "works", "expires_at": ago(-2) });
    assert_eq!(
        server
            .post(&format!("{path}/shelve"), Some(&token), &body)
            .status,
        200
    );
    let (folder, setup) = server.kill();
    let server = Server::start(folder, setup);
    crate::support::eventually("it comes back", || {
        server.get(&path, Some(&token)).json()["operator_state"] == "none"
    });
}

#[test]
fn what_belongs_to_another_tenant_is_not_there_on_any_verb() {
    let server = Setup::default().start();
    let (a, b) = (operator("a"), operator("b"));
    let body = alarm("c1", "major", 60);
    let id = server.post(INGEST, Some(&a), &body).json()["alarm_id"]
        .as_str()
        .unwrap()
        .to_owned();
    // Even where the other has the very same alarm.
    let own = server.post(INGEST, Some(&b), &body).json();
    assert_eq!(own["status"], "accepted");
    assert_ne!(own["alarm_id"], id.as_str());
    server
        .get(&format!("/api/v1/alarms/{id}"), Some(&b))
        .is_problem(404, None);
    for verb in ["acknowledge", "unacknowledge", "clear", "unshelve"] {
        server
            .post(&format!("/api/v1/alarms/{id}/{verb}"), Some(&b), &json!({}))
            .is_problem(404, None);
    }
    let shelve = json!({ "reason": "x", "expires_at": ago(-60) });
    server
        .post(&format!("/api/v1/alarms/{id}/shelve"), Some(&b), &shelve)
        .is_problem(404, None);
    let tmf = format!("/tmf-api/alarmManagement/v4/alarm/{id}");
    server.get(&tmf, Some(&b)).is_problem(404, None);
    let patch = server.request(&Request {
        token: Some(&b),
        headers: vec![("Content-Type", "application/json".to_owned())],
        body: br#"{"ackState":"acknowledged"}"#.to_vec(),
        ..Request::new("PATCH", &tmf)
    });
    patch.is_problem(404, None);
    assert_eq!(
        server.get("/api/v1/alarms?entity_id=c1", Some(&b)).json()["total"],
        1
    );
    let shown = server.get(&format!("/api/v1/alarms/{id}"), Some(&a)).json();
    assert_eq!(
        (&shown["condition"], &shown["operator_state"]),
        (&json!("raised"), &json!("none"))
    );
}
