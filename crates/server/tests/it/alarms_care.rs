//! Customers and proactive care over HTTP: consent, erasure, tenants, and that nothing leaves the server.

use serde_json::{Value, json};

use crate::support::{Answer, Request, Server, Setup, admin, token_of};

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

fn put(server: &Server, token: &str, id: &str, body: Value) -> Answer {
    send(
        server,
        "PUT",
        &format!("/api/v1/customers/{id}"),
        token,
        Some(&body),
    )
}

fn consenting(is: bool) -> Value {
    json!({"name": "Harbour Clinic", "entity_ids": ["cell-7"], "consents": {"consent_proactive_comms": is}, "churn_risk": 0.8})
}

fn care(server: &Server, token: &str, body: &Value) -> Value {
    let answer = server.post("/api/v1/proactive-care", Some(token), body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

fn events(server: &Server, token: &str, topic: &str) -> Vec<Value> {
    let page = server
        .get(&format!("/api/v1/events?topic={topic}"), Some(token))
        .json();
    page["events"].as_array().unwrap().clone()
}

#[test]
fn customers_are_stored_listed_and_refused_by_the_member() {
    let server = Setup::default().start();
    let root = admin();
    let first = put(&server, &root, "c-1", consenting(true));
    assert_eq!(first.status, 201, "{}", first.body);
    let shown = first.json();
    for (name, value) in [
        ("id", json!("c-1")),
        ("tenant_id", json!("a")),
        ("entity_ids", json!(["cell-7"])),
        ("churn_risk", json!(0.8)),
    ] {
        assert_eq!(shown[name], value);
    }
    assert_eq!(put(&server, &root, "c-1", json!({})).status, 200);
    let now = server.get("/api/v1/customers/c-1", Some(&root)).json();
    assert_eq!(
        (&now["consents"]["consent_proactive_comms"], &now["name"]),
        (&json!(false), &Value::Null),
        "replaced"
    );
    for n in 2..=4 {
        put(&server, &root, &format!("c-{n}"), json!({}));
    }
    let page = server.get("/api/v1/customers?limit=3", Some(&root)).json();
    let after = page["cursor"].as_str().unwrap();
    assert_eq!(page["customers"].as_array().unwrap().len(), 3);
    let rest = server
        .get(
            &format!("/api/v1/customers?limit=3&after={after}"),
            Some(&root),
        )
        .json();
    assert_eq!(
        (rest["customers"].as_array().unwrap().len(), &rest["cursor"]),
        (1, &Value::Null)
    );
    server
        .get("/api/v1/customers?after=x", Some(&root))
        .is_problem(400, Some("after"));
    for (body, field) in [
        (json!({"consents": {"x": true}}), "consents.x"),
        (
            json!({"consents": {"consent_proactive_comms": "yes"}}),
            "consents.consent_proactive_comms",
        ),
        (json!({"churn_risk": 2}), "churn_risk"),
        (json!({"entity_ids": [1]}), "entity_ids"),
        (json!({"age": 7}), "age"),
    ] {
        put(&server, &root, "c-9", body).is_problem(422, Some(field));
    }
    assert_eq!(put(&server, &root, "a%2Fb", json!({})).status, 422);
    server
        .get("/api/v1/customers/c-9", Some(&root))
        .is_problem(404, None);
}

#[test]
fn who_withdraws_consent_is_blocked_from_the_next_call_on() {
    let server = Setup::default().start();
    let root = admin();
    put(&server, &root, "c-1", consenting(true));
    put(&server, &root, "c-2", consenting(false));
    // The customer's own stream shows what they are told, and no more.
    let own = token_of("a", "c-1", &json!({}));
    let mut stream = server.stream("topic=notifications/users/c-1", &own, None);
    stream.until("connected");
    let ask = json!({"customer_ids": ["c-1", "c-2", "c-3"], "message": "We work on it."});
    let answer = care(&server, &root, &ask);
    assert_eq!(
        (&answer["sent_count"], &answer["blocked_count"]),
        (&json!(1), &json!(2))
    );
    let sent = &answer["sent"][0];
    assert_eq!(
        (&sent["customer_id"], &sent["channel"], &sent["status"]),
        (&json!("c-1"), &json!("simulation"), &json!("sent"))
    );
    assert_eq!(
        answer["blocked"],
        json!([{"customer_id": "c-2", "reason": "no_consent"}, {"customer_id": "c-3", "reason": "not_found"}])
    );
    let told = stream.until("notification");
    assert!(told.data.contains("We work on it."), "{}", told.data);
    assert_eq!(put(&server, &root, "c-1", consenting(false)).status, 200);
    let answer = care(&server, &root, &ask);
    assert_eq!(
        (&answer["sent"], &answer["blocked"][0]["reason"]),
        (&json!([]), &json!("no_consent"))
    );
    assert_eq!(events(&server, &root, "notifications/users/c-1").len(), 1);
    let audited = events(&server, &root, "audit/alarms");
    assert_eq!(audited.len(), 5);
    assert!(
        audited
            .iter()
            .all(|e| e["type"] == "proactive_care_blocked" && e["data"]["actor"] == "root")
    );
    for body in [
        json!({"message": "m"}),
        json!({"customer_ids": ["c-1"], "incident_id": "i", "message": "m"}),
        json!({"customer_ids": ["c-1"]}),
        json!({"customer_ids": [], "message": "m"}),
    ] {
        assert_eq!(
            server
                .post("/api/v1/proactive-care", Some(&root), &body)
                .status,
            422,
            "{body}"
        );
    }
    let none = json!({"incident_id": "none", "message": "m"});
    server
        .post("/api/v1/proactive-care", Some(&root), &none)
        .is_problem(404, None);
}

#[test]
fn an_erased_customer_is_nowhere_but_in_what_happened() {
    let server = Setup::default().start();
    let root = admin();
    put(&server, &root, "c-1", consenting(true));
    care(
        &server,
        &root,
        &json!({"customer_ids": ["c-1"], "message": "Dear Agnes of the Harbour"}),
    );
    let before = events(&server, &root, "**");
    assert_eq!(
        send(&server, "DELETE", "/api/v1/customers/c-1", &root, None).status,
        204
    );
    server
        .get("/api/v1/customers/c-1", Some(&root))
        .is_problem(404, None);
    assert_eq!(
        send(&server, "DELETE", "/api/v1/customers/c-1", &root, None).status,
        404
    );
    let after = events(&server, &root, "**");
    assert_eq!(after.len(), before.len() + 1);
    for (was, is) in before.iter().zip(&after) {
        for member in ["id", "cursor", "topic", "type", "time"] {
            assert_eq!(was[member], is[member]);
        }
        assert_eq!(is["data"]["redacted"], true);
    }
    assert_eq!(after.last().unwrap()["type"], "customer_erased");
    let whole = json!(after).to_string();
    assert!(
        !whole.contains("Agnes") && !whole.contains("Harbour"),
        "{whole}"
    );
    // A stream that comes back with the oldest cursor gets it so, also after a kill.
    let (folder, setup) = server.kill();
    let server = Server::start(folder, setup);
    assert_eq!(events(&server, &root, "**"), after);
}

#[test]
fn tenants_and_scopes_hold_on_every_verb() {
    let server = Setup::default().start();
    let (root, other) = (
        admin(),
        token_of("b", "root", &json!({ "roles": ["admin"] })),
    );
    put(&server, &root, "c-1", consenting(true));
    for method in ["GET", "DELETE"] {
        assert_eq!(
            send(&server, method, "/api/v1/customers/c-1", &other, None).status,
            404
        );
    }
    assert_eq!(
        put(&server, &other, "c-1", consenting(false)).status,
        201,
        "one of their own"
    );
    assert_eq!(
        server.get("/api/v1/customers/c-1", Some(&root)).json()["consents"]["consent_proactive_comms"],
        true
    );
    let answer = care(
        &server,
        &other,
        &json!({"customer_ids": ["c-1"], "message": "m"}),
    );
    assert_eq!(answer["sent_count"], 0);
    let reader = token_of("a", "r", &json!({"scope": "cx:intelligence:read"}));
    assert_eq!(
        server.get("/api/v1/customers/c-1", Some(&reader)).status,
        200
    );
    assert_eq!(put(&server, &reader, "c-1", json!({})).status, 403);
    assert_eq!(
        send(&server, "DELETE", "/api/v1/customers/c-1", &reader, None).status,
        403
    );
    let body = json!({"customer_ids": ["c-1"], "message": "m"});
    assert_eq!(
        server
            .post("/api/v1/proactive-care", Some(&reader), &body)
            .status,
        403
    );
    assert_eq!(server.get("/api/v1/customers", None).status, 401);
}

#[test]
fn the_old_paths_tell_and_show_those_who_are_likely_to_leave() {
    let server = Setup::default().start();
    let root = admin();
    let body = json!({"title": "t", "severity": "major", "entity_id": "cell-7"});
    let incident = server.post("/api/v1/incidents", Some(&root), &body).json();
    let of = incident["id"].as_str().unwrap();
    let (care_path, impact_path) = (
        format!("/api/v1/cx/proactive-care/{of}"),
        format!("/api/v1/cx/impact/{of}"),
    );
    assert_eq!(
        send(&server, "POST", &care_path, &root, None).status,
        404,
        "nobody is affected"
    );
    put(&server, &root, "c-1", consenting(true));
    put(&server, &root, "c-2", consenting(false));
    put(
        &server,
        &root,
        "loyal",
        json!({"entity_ids": ["cell-7"], "churn_risk": 0.7, "consents": {"consent_proactive_comms": true}}),
    );
    let impact = server.get(&impact_path, Some(&root)).json();
    assert_eq!(
        (&impact["anomaly_id"], &impact["total_high_risk_count"]),
        (&json!(of), &json!(2))
    );
    let told = send(&server, "POST", &care_path, &root, None);
    assert_eq!(told.status, 201, "{}", told.body);
    let told = told.json();
    assert_eq!(
        (
            told.as_array().unwrap().len(),
            &told[0]["customer_id"],
            &told[0]["anomaly_id"]
        ),
        (1, &json!("c-1"), &json!(of))
    );
    let other = token_of("b", "root", &json!({ "roles": ["admin"] }));
    assert_eq!(send(&server, "POST", &care_path, &other, None).status, 404);
    assert_eq!(server.get(&impact_path, Some(&other)).status, 404);
}

/// Connections that the process has opened to others: sockets of its own that are connected and did not come in through
/// the address that it listens on.
#[cfg(target_os = "linux")]
fn outgoing(server: &Server) -> Vec<String> {
    let port = server
        .address
        .rsplit(':')
        .next()
        .unwrap()
        .parse::<u16>()
        .unwrap();
    let folder = format!("/proc/{}", server.pid());
    let sockets: Vec<String> = std::fs::read_dir(format!("{folder}/fd"))
        .unwrap()
        .filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok())
        .filter_map(|link| {
            let link = link.to_string_lossy().into_owned();
            Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    let mut found = Vec::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let rows = std::fs::read_to_string(format!("{folder}/net/{table}")).unwrap_or_default();
        for row in rows.lines().skip(1) {
            let cells: Vec<&str> = row.split_whitespace().collect();
            let (local, remote, inode) = (cells[1], cells[2], cells[9]);
            let is_ours = sockets.iter().any(|socket| socket == inode);
            let is_connected = !remote.ends_with(":0000");
            let came_in = u16::from_str_radix(local.rsplit(':').next().unwrap(), 16) == Ok(port);
            if is_ours && (table.starts_with("udp") || (is_connected && !came_in)) {
                found.push(row.to_owned());
            }
        }
    }
    found
}

/// See `docs/adr/0004`: tidings advises, and acts on nothing.
#[cfg(target_os = "linux")]
#[test]
fn a_whole_incident_opens_no_connection_to_anybody() {
    let server = Setup::default().start();
    let root = admin();
    put(&server, &root, "c-1", consenting(true));
    let body = json!({"title": "t", "severity": "major", "entity_id": "cell-7"});
    let incident = server.post("/api/v1/incidents", Some(&root), &body).json();
    let of = format!("/api/v1/incidents/{}", incident["id"].as_str().unwrap());
    for (method, path, body) in [
        ("POST", "/generate-sitrep", None),
        ("POST", "/approve-sitrep", None),
        ("POST", "/approve-action", None),
        ("PATCH", "", Some(json!({"status": "acknowledged"}))),
        ("PATCH", "", Some(json!({"status": "in_progress"}))),
        ("PATCH", "", Some(json!({"status": "resolved"}))),
        ("POST", "/close", None),
        ("GET", "/impact", None),
    ] {
        let answer = send(
            &server,
            method,
            &format!("{of}{path}"),
            &root,
            body.as_ref(),
        );
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
        assert_eq!(outgoing(&server), Vec::<String>::new(), "{method} {path}");
    }
    care(
        &server,
        &root,
        &json!({"customer_ids": ["c-1"], "message": "m"}),
    );
    assert_eq!(outgoing(&server), Vec::<String>::new());
}
