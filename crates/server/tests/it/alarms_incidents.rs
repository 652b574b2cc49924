//! Incidents over HTTP: paths old and new, gates, moves that are not allowed, tenants, restarts.

use serde_json::{Value, json};

use crate::support::{Answer, Request, Server, Setup, admin, eventually, token_of};

const INCIDENTS: &str = "/api/v1/incidents";

fn send(server: &Server, method: &str, path: &str, token: &str, body: Option<&Value>) -> Answer {
    let mut request = Request {
        token: Some(token),
        ..Request::new(method, path)
    };
    if let Some(body) = body {
        request
            .headers
            .push(("Content-Type", "application/json".to_owned()));
        request.body = body.to_string().into_bytes();
    }
    server.request(&request)
}

fn patch(server: &Server, id: &str, token: &str, body: Value) -> Answer {
    send(
        server,
        "PATCH",
        &format!("{INCIDENTS}/{id}"),
        token,
        Some(&body),
    )
}

fn on(server: &Server, method: &str, id: &str, path: &str, token: &str) -> Answer {
    send(
        server,
        method,
        &format!("{INCIDENTS}/{id}/{path}"),
        token,
        None,
    )
}

#[track_caller]
fn opened(server: &Server, token: &str, body: &Value) -> Value {
    let answer = server.post(INCIDENTS, Some(token), body);
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.json()
}

fn id(incident: &Value) -> String {
    incident["id"].as_str().unwrap().to_owned()
}

#[track_caller]
fn is_illegal(answer: &Answer, status: u16, legal: &[&str]) {
    answer.is_problem(status, None);
    assert_eq!(answer.json()["legal"], json!(legal), "{}", answer.body);
    assert!(answer.json()["detail"].is_string());
}

#[test]
fn an_incident_goes_its_way_one_step_at_a_time() {
    let server = Setup::default().start();
    let root = admin();
    let body =
        json!({"tenant_id": "b", "title": "Link down", "severity": "HIGH", "entity_id": "site-1"});
    let incident = opened(&server, &root, &body);
    let of = id(&incident);
    for (name, value) in [
        ("tenant_id", json!("a")),
        ("severity", json!("high")),
        ("priority", json!("P2")),
        ("impact", json!("high")),
        ("status", json!("open")),
        ("alarm_ids", json!([])),
        ("alarm_count", json!(0)),
        ("reasoning_chain", Value::Null),
        ("closed_at", Value::Null),
        ("llm_model_version", Value::Null),
        ("ai_generated", json!(false)),
    ] {
        assert_eq!(incident[name], value, "{name}");
    }
    let again = server.post(INCIDENTS, Some(&root), &body);
    assert_eq!(
        (again.status, again.json()["id"].as_str()),
        (200, Some(of.as_str()))
    );
    for wrong in ["in_progress", "resolved", "closed", "open"] {
        is_illegal(
            &patch(&server, &of, &root, json!({"status": wrong})),
            409,
            &["acknowledged"],
        );
    }
    is_illegal(
        &on(&server, "POST", &of, "close", &root),
        400,
        &["acknowledged"],
    );
    let taken = patch(
        &server,
        &of,
        &root,
        json!({"status": "acknowledged", "title": "Link down at Harbour"}),
    );
    assert_eq!(
        (taken.status, &taken.json()["acknowledged_by"]),
        (200, &json!("root"))
    );
    let refused = patch(
        &server,
        &of,
        &root,
        json!({"status": "closed", "title": "Never"}),
    );
    is_illegal(&refused, 409, &["in_progress"]);
    assert_eq!(
        server.get(&format!("{INCIDENTS}/{of}"), Some(&root)).json()["title"],
        "Link down at Harbour"
    );
    assert_eq!(
        on(&server, "PATCH", &of, "advance", &root).json()["status"],
        "in_progress"
    );
    assert_eq!(
        on(&server, "PATCH", &of, "advance", &root).json()["status"],
        "resolved"
    );
    is_illegal(
        &on(&server, "PATCH", &of, "advance", &root),
        400,
        &["closed"],
    );
    let by = json!({"approved_by": "somebody else", "reason": "done"});
    let closed = send(
        &server,
        "POST",
        &format!("{INCIDENTS}/{of}/close"),
        &root,
        Some(&by),
    );
    assert_eq!(
        (closed.status, &closed.json()["closed_by"]),
        (200, &json!("root"))
    );
    is_illegal(
        &patch(&server, &of, &root, json!({"status": "closed"})),
        409,
        &[],
    );
    is_illegal(&on(&server, "PATCH", &of, "advance", &root), 400, &[]);
    let timeline = on(&server, "GET", &of, "timeline", &root).json();
    let kinds: Vec<_> = timeline["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "opened",
            "edited",
            "acknowledged",
            "in_progress",
            "resolved",
            "closed"
        ]
    );
    // Each of its changes is told of, and stands after a kill.
    let told = server
        .get("/api/v1/events?topic=incidents", Some(&root))
        .json();
    let told = told["events"].as_array().unwrap();
    assert_eq!(
        (&told[0]["type"], told.len()),
        (&json!("incident_created"), 6)
    );
    assert_eq!(told[0]["data"]["incident_id"], of.as_str());
    assert_eq!(told[0]["data"]["event_id"], told[0]["id"]);
    let (folder, setup) = server.kill();
    let server = Server::start(folder, setup);
    assert_eq!(
        server.get(&format!("{INCIDENTS}/{of}"), Some(&root)).json()["status"],
        "closed"
    );
}

#[test]
fn bad_input_names_the_member_and_stores_nothing() {
    let server = Setup::default().start();
    let root = admin();
    for (body, field) in [
        (json!({"severity": "high"}), "title"),
        (json!({"title": "", "severity": "high"}), "title"),
        (json!({"title": "a\u{0}b", "severity": "high"}), "title"),
        (
            json!({"title": "x".repeat(513), "severity": "high"}),
            "title",
        ),
        (json!({"title": "t", "severity": "cleared"}), "severity"),
        (json!({"title": "t", "severity": 1}), "severity"),
        (
            json!({"title": "t", "severity": "high", "cluster_id": "none"}),
            "cluster_id",
        ),
        (
            json!({"title": "t", "severity": "high", "colour": "red"}),
            "colour",
        ),
    ] {
        let answer = server.post(INCIDENTS, Some(&root), &body);
        answer.is_problem(422, Some(field));
        assert_eq!(
            answer.json()["detail"][0]["loc"],
            json!(["body", field]),
            "{}",
            answer.body
        );
    }
    assert_eq!(server.get(INCIDENTS, Some(&root)).json()["total"], 0);
    let of = id(&opened(
        &server,
        &root,
        &json!({"title": "t", "severity": "high"}),
    ));
    for body in [
        json!({"status": "done"}),
        json!({"severity": "minor"}),
        json!({"status": 1}),
        json!([]),
    ] {
        assert_eq!(
            patch(&server, &of, &root, body.clone()).status,
            422,
            "{body}"
        );
    }
    for query in [
        "page=0",
        "page_size=201",
        "sort_by=x",
        "sort_dir=x",
        "status=x",
        "severity=x",
    ] {
        let name = query.split('=').next().unwrap();
        server
            .get(&format!("{INCIDENTS}?{query}"), Some(&root))
            .is_problem(400, Some(name));
    }
    for query in ["from=yesterday", "to=2026-01-01"] {
        let name = query.split('=').next().unwrap();
        server
            .get(&format!("/api/v1/scorecard?{query}"), Some(&root))
            .is_problem(400, Some(name));
    }
    let window = "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z";
    server
        .get(&format!("/api/v1/scorecard?{window}"), Some(&root))
        .is_problem(400, Some("to"));
}

#[test]
fn lists_are_pages() {
    let server = Setup::default().start();
    let root = admin();
    for (title, severity) in [("Alpha", "minor"), ("Beta", "critical"), ("Gamma", "major")] {
        opened(
            &server,
            &root,
            &json!({"title": title, "severity": severity, "entity_external_id": format!("x-{title}")}),
        );
    }
    let titles = |query: &str| {
        let list = server
            .get(&format!("{INCIDENTS}?{query}"), Some(&root))
            .json();
        let of = |i: &Value| i["title"].as_str().unwrap().to_owned();
        let titles: Vec<_> = list["incidents"]
            .as_array()
            .unwrap()
            .iter()
            .map(of)
            .collect();
        (titles.join(" "), list["total"].as_u64().unwrap())
    };
    let first = server.get(INCIDENTS, Some(&root)).json();
    assert_eq!(
        (&first["page"], &first["page_size"], &first["total"]),
        (&json!(1), &json!(50), &json!(3))
    );
    assert_eq!(
        titles("sort_by=severity&sort_dir=desc"),
        ("Beta Gamma Alpha".into(), 3)
    );
    assert_eq!(
        titles("sort_by=title&sort_dir=asc&page=2&page_size=2"),
        ("Gamma".into(), 3)
    );
    assert_eq!(titles("search=X-BETA"), ("Beta".into(), 1));
    assert_eq!(
        titles("severity=critical,major&sort_by=title&sort_dir=asc"),
        ("Beta Gamma".into(), 2)
    );
    assert_eq!(titles("exclude_status=open").1, 0);
    assert_eq!(titles("status=anomaly").1, 3);
    assert_eq!(
        server.get(&format!("{INCIDENTS}/"), Some(&root)).status,
        200
    );
}

#[test]
fn gates_are_passed_by_who_may_and_before_the_end_where_that_is_asked() {
    let server = Setup::default()
        .set("incidents.require_approval=true")
        .start();
    let who = |name: &str, scopes: &str| token_of("a", name, &json!({ "scope": scopes }));
    let writer = who("wendy", "incident:read incident:write");
    let (sid, ana) = (
        who("sid", "incident:approve_sitrep"),
        who("ana", "incident:approve_action"),
    );
    let of = id(&opened(
        &server,
        &writer,
        &json!({"title": "t", "severity": "minor"}),
    ));
    for status in ["acknowledged", "in_progress"] {
        assert_eq!(
            patch(&server, &of, &writer, json!({ "status": status })).status,
            200
        );
    }
    is_illegal(
        &patch(&server, &of, &writer, json!({"status": "resolved"})),
        409,
        &[],
    );
    is_illegal(&on(&server, "PATCH", &of, "advance", &writer), 400, &[]);
    for (path, token) in [
        ("approve-sitrep", &writer),
        ("approve-sitrep", &ana),
        ("approve-action", &sid),
        ("close", &writer),
    ] {
        on(&server, "POST", &of, path, token).is_problem(403, None);
    }
    is_illegal(
        &on(&server, "POST", &of, "approve-action", &ana),
        409,
        &["approve-sitrep"],
    );
    let by = json!({"approved_by": "the boss", "reason": "=1+1"});
    let passed = send(
        &server,
        "POST",
        &format!("{INCIDENTS}/{of}/approve-sitrep"),
        &sid,
        Some(&by),
    );
    assert_eq!(
        (passed.status, &passed.json()["sitrep_approved_by"]),
        (200, &json!("sid"))
    );
    is_illegal(
        &on(&server, "POST", &of, "approve-sitrep", &sid),
        409,
        &["approve-action"],
    );
    assert_eq!(
        on(&server, "POST", &of, "approve-action", &ana).json()["action_approved_by"],
        "ana"
    );
    assert_eq!(
        patch(&server, &of, &writer, json!({"status": "resolved"})).json()["status"],
        "resolved"
    );
    is_illegal(&on(&server, "POST", &of, "approve-action", &ana), 409, &[]);
    // The trail says who, as JSON and as a table that no spreadsheet runs.
    let trail = on(&server, "GET", &of, "audit-trail", &writer).json();
    assert_eq!(trail["incident_id"], of.as_str());
    let entries = trail["audit_trail"].as_array().unwrap();
    let approval = entries
        .iter()
        .find(|e| e["action"] == "SITREP_APPROVED")
        .unwrap();
    assert_eq!(
        (&approval["actor"], &approval["action_type"]),
        (&json!("sid"), &json!("human"))
    );
    assert_eq!(approval["trace_id"].as_str().unwrap().len(), 32);
    assert!(approval["llm_prompt_hash"].is_null() && approval.get("llm_model_version").is_some());
    let csv = on(&server, "GET", &of, "audit-trail/csv", &writer);
    assert!(csv.header("content-type").starts_with("text/csv"));
    assert_eq!(csv.body.lines().count(), entries.len() + 1);
    let cells = |line: &str| {
        line.split(',')
            .all(|cell| !cell.trim_matches('"').starts_with(['=', '+', '@']))
    };
    assert!(csv.body.lines().all(cells), "{}", csv.body);
}

#[test]
fn an_emergency_service_is_critical_by_whatever_names_it() {
    let server = Setup::default().start();
    let root = admin();
    for (n, named) in [
        json!({"entity_external_id": "EMERGENCY_SERVICE_999"}),
        json!({"entity_external_id": "the-emergency-line"}),
        json!({"entity_id": "Emergency-7"}),
    ]
    .iter()
    .enumerate()
    {
        let mut body = json!({"title": format!("t{n}"), "severity": "minor"});
        body.as_object_mut()
            .unwrap()
            .extend(named.as_object().unwrap().clone());
        let incident = opened(&server, &root, &body);
        assert_eq!(
            (&incident["severity"], &incident["priority"]),
            (&json!("critical"), &json!("P1")),
            "{body}"
        );
        assert!(incident["severity_reason"].is_string());
    }
}

#[test]
fn nobody_sees_or_moves_another_tenants_incident() {
    let server = Setup::default().start();
    let (root, other) = (
        admin(),
        token_of("b", "root", &json!({ "roles": ["admin"] })),
    );
    let of = id(&opened(
        &server,
        &root,
        &json!({"title": "t", "severity": "minor"}),
    ));
    let body = json!({});
    for (method, path) in [
        ("GET", ""),
        ("PATCH", ""),
        ("PATCH", "/advance"),
        ("POST", "/close"),
        ("POST", "/approve-sitrep"),
        ("POST", "/approve-action"),
        ("GET", "/timeline"),
        ("GET", "/audit-trail"),
        ("GET", "/audit-trail/csv"),
        ("GET", "/impact"),
        ("GET", "/sitrep"),
        ("POST", "/generate-sitrep"),
        ("GET", "/reasoning"),
    ] {
        let path = format!("{INCIDENTS}/{of}{path}");
        let theirs = send(
            &server,
            method,
            &path,
            &other,
            (method != "GET").then_some(&body),
        );
        assert_eq!(theirs.status, 404, "{method} {path}: {}", theirs.body);
        assert_eq!(
            send(&server, method, &path, "no token", None).status,
            401,
            "{method} {path}"
        );
        let without = token_of("a", "nobody", &json!({"scope": "events:read"}));
        assert_eq!(
            send(&server, method, &path, &without, None).status,
            403,
            "{method} {path}"
        );
    }
    assert_eq!(server.get(INCIDENTS, Some(&other)).json()["total"], 0);
    assert_eq!(
        server.get(&format!("{INCIDENTS}/{of}"), Some(&root)).json()["status"],
        "open"
    );
    let reader = token_of("a", "r", &json!({"scope": "incident:read"}));
    assert_eq!(
        server
            .get(&format!("{INCIDENTS}/{of}"), Some(&reader))
            .status,
        200
    );
    assert_eq!(
        patch(&server, &of, &reader, json!({"status": "acknowledged"})).status,
        403
    );
}

#[test]
fn a_report_is_told_in_words_and_a_scorecard_invents_nothing() {
    let server = Setup::default().start();
    let root = admin();
    let empty = server.get("/api/v1/scorecard", Some(&root)).json();
    for name in [
        "mtta_seconds",
        "mttr_seconds",
        "open_by_severity",
        "alarm_count",
        "cluster_count",
        "incident_count",
        "noise_reduction_pct",
    ] {
        assert!(empty[name].is_null(), "{name}: {empty}");
    }
    assert_eq!(empty["availability"], json!({}));
    let incident = opened(
        &server,
        &root,
        &json!({"title": "Harbour is dark", "severity": "major", "entity_id": "site-1"}),
    );
    let of = id(&incident);
    let report = on(&server, "GET", &of, "sitrep", &root).json();
    let minute = format!(
        "{} UTC",
        incident["created_at"].as_str().unwrap()[..16].replace('T', " ")
    );
    for part in [
        "Harbour is dark",
        "site-1",
        minute.as_str(),
        "Advised next:",
    ] {
        assert!(
            report["sitrep"].as_str().unwrap().contains(part),
            "{part}: {report}"
        );
    }
    assert_eq!(report["facts"]["incident_id"], of.as_str());
    let path = format!("{INCIDENTS}/{of}/sitrep");
    let plain = Request {
        token: Some(&root),
        headers: vec![("Accept", "text/plain".to_owned())],
        ..Request::new("GET", &path)
    };
    let plain = server.request(&plain);
    assert!(plain.header("content-type").starts_with("text/plain"));
    assert_eq!(
        plain.body,
        report["sitrep"].as_str().unwrap(),
        "the same facts make the same words"
    );
    let made = on(&server, "POST", &of, "generate-sitrep", &root).json();
    assert_eq!(
        (&made["id"], made["sitrep"].is_string()),
        (&json!(of), true)
    );
    let reasoning = on(&server, "GET", &of, "reasoning", &root).json();
    assert_eq!(
        (&reasoning["incident_id"], &reasoning["reasoning_chain"]),
        (&json!(of), &json!([]))
    );
    let impact = on(&server, "GET", &of, "impact", &root).json();
    assert_eq!(
        impact,
        json!({"entities": ["site-1"], "customers": [], "revenue_weight": null, "sla_tiers": {}})
    );
    let card = server.get("/api/v1/scorecard", Some(&root)).json();
    assert_eq!(
        (&card["incident_count"], &card["open_by_severity"]["major"]),
        (&json!(1), &json!(1))
    );
    assert!(card["mtta_seconds"].is_null() && card["noise_reduction_pct"].is_null());
    let old = server
        .get("/api/v1/autonomous/scorecard", Some(&root))
        .json();
    assert_eq!(
        (
            &old["pedkai_zone_incident_count"],
            &old["pedkai_zone_mttr_minutes"]
        ),
        (&json!(1), &Value::Null)
    );
    assert!(
        old["period_start"].is_string() && old["value_protected"]["revenue_protected"].is_null()
    );
}

fn alarm(entity: &str, kind: &str, severity: &str) -> Value {
    json!({
        "entity_id": entity, "alarm_type": kind, "severity": severity, "raised_at": "2026-02-23T19:00:00Z",
        "source_system": "t",
    })
}

fn ingest(server: &Server, token: &str, alarms: &[Value]) {
    let answer = server.post("/api/v1/alarms/ingest/batch", Some(token), &json!(alarms));
    assert_eq!(answer.status, 202, "{}", answer.body);
}

/// The only incident, once there is one.
fn only(server: &Server, token: &str) -> Value {
    let list = || server.get(INCIDENTS, Some(token)).json();
    eventually("an incident", || list()["total"] == 1);
    list()["incidents"][0].clone()
}

#[test]
fn a_fault_is_an_incident_from_its_cluster_until_its_last_alarm_clears() {
    let server = Setup::default().start();
    let root = admin();
    for (id, body) in [
        (
            "site",
            json!({"entity_type": "SITE", "revenue_weight": 5, "sla_tier": "GOLD"}),
        ),
        ("cell", json!({"entity_type": "CELL", "part_of": ["site"]})),
    ] {
        let path = format!("/api/v1/entities/{id}");
        assert_eq!(send(&server, "PUT", &path, &root, Some(&body)).status, 201);
    }
    ingest(
        &server,
        &root,
        &[
            alarm("site", "POWER", "minor"),
            alarm("cell", "DOWN", "critical"),
        ],
    );
    let incident = only(&server, &root);
    let of = id(&incident);
    let cluster = incident["cluster_id"].as_str().unwrap();
    assert_eq!(
        incident["title"],
        format!("Auto-created incident from cluster {cluster}")
    );
    assert_eq!(
        (&incident["severity"], &incident["entity_id"]),
        (&json!("critical"), &json!("site"))
    );
    assert_eq!(
        (
            &incident["alarm_count"],
            incident["alarm_ids"].as_array().unwrap().len()
        ),
        (&json!(2), 2)
    );
    assert!(
        !on(&server, "GET", &of, "reasoning", &root).json()["reasoning_chain"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        on(&server, "GET", &of, "impact", &root).json()["revenue_weight"],
        5.0
    );
    // By hand for the same cluster it is the same incident.
    let body = json!({"title": "Mine", "severity": "minor", "cluster_id": cluster});
    let again = server.post(INCIDENTS, Some(&root), &body);
    assert_eq!(
        (again.status, again.json()["id"].as_str()),
        (200, Some(of.as_str()))
    );
    ingest(
        &server,
        &root,
        &[json!({
            "entity_id": "site", "alarm_type": "POWER", "severity": "cleared", "raised_at": "2026-02-23T19:01:00Z", "source_system": "t",
        })],
    );
    assert_eq!(
        server.get(&format!("{INCIDENTS}/{of}"), Some(&root)).json()["status"],
        "open"
    );
    // The last one is cleared by hand.
    let alarms = server
        .get("/api/v1/alarms?condition=raised", Some(&root))
        .json();
    let last = alarms["alarms"][0]["id"].as_str().unwrap();
    let path = format!("/api/v1/alarms/{last}/clear");
    assert_eq!(send(&server, "POST", &path, &root, None).status, 200);
    let over = server.get(&format!("{INCIDENTS}/{of}"), Some(&root)).json();
    assert_eq!(
        (&over["status"], &over["resolved_by"]),
        (&json!("resolved"), &json!("system"))
    );
    let card = server
        .get("/api/v1/scorecard?from=2026-02-01T00:00:00Z", Some(&root))
        .json();
    assert_eq!(
        (
            &card["alarm_count"],
            &card["cluster_count"],
            &card["incident_count"]
        ),
        (&json!(2), &json!(1), &json!(1))
    );
    assert_eq!(card["noise_reduction_pct"], 50.0);
    assert!(card["availability"]["CELL"].is_number() && card["availability"]["SITE"].is_number());
    // It is all there after a kill, and stays over.
    let (folder, setup) = server.kill();
    let server = Server::start(folder, setup);
    assert_eq!(only(&server, &root)["status"], "resolved");
}

#[test]
fn what_opens_no_incident_by_itself_can_be_taken_up_by_hand() {
    let server = Setup::default().set("incidents.min_severity=major").start();
    let root = admin();
    ingest(
        &server,
        &root,
        &[
            alarm("cell-1", "FAN", "minor"),
            alarm("Emergency-line", "FAN", "minor"),
        ],
    );
    // The emergency is one whatever its severity.
    let emergency = only(&server, &root);
    assert_eq!(
        (&emergency["severity"], &emergency["priority"]),
        (&json!("critical"), &json!("P1"))
    );
    let clusters = server.get("/api/v1/clusters", Some(&root)).json();
    let clusters = clusters["clusters"].as_array().unwrap();
    let mild = clusters
        .iter()
        .find(|c| c["cluster_id"] != emergency["cluster_id"]);
    if let Some(mild) = mild {
        let body =
            json!({"title": "Noisy fan", "severity": "minor", "cluster_id": mild["cluster_id"]});
        let taken = opened(&server, &root, &body);
        assert_eq!(
            (&taken["alarm_ids"], &taken["entity_id"]),
            (&mild["alarm_ids"], &json!("cell-1"))
        );
    }
}
