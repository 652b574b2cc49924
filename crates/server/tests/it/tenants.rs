//! Nothing crosses from one tenant to another: on no verb, by no field, header or query that a caller can choose.

use serde_json::json;

use crate::support::{Request, Setup, token_of};

#[test]
fn nothing_crosses() {
    let server = Setup::default().start();
    let of = |tenant: &str| token_of(tenant, "root", &json!({ "roles": ["admin"] }));
    let (a, b) = (of("a"), of("b"));
    let mut theirs = server.stream("topic=**", &b, None);
    theirs.until("connected");
    let mine = server.publish(&a, "x", &json!("of a"));
    // Whatever else names the other tenant, the credential decides.
    let spoofed = Request {
        token: Some(&a),
        headers: vec![
            ("Content-Type", "application/json".into()),
            ("X-Tenant-ID", "b".into()),
            ("X-Tenant", "b".into()),
            ("Cookie", "tenant_id=b".into()),
        ],
        body: json!({ "topic": "x", "type": "t", "data": "of a too" })
            .to_string()
            .into_bytes(),
        ..Request::new("POST", "/api/v1/events?tenant_id=b&tenant=b")
    };
    assert_eq!(server.request(&spoofed).status, 202);
    let named = json!({ "topic": "x", "type": "t", "data": 1, "tenant_id": "b" });
    server
        .post("/api/v1/events", Some(&a), &named)
        .is_problem(422, Some("tenant_id"));
    server.publish(&b, "x", &json!("of b"));
    assert_eq!(theirs.data(1), ["of b"], "and nothing of a");
    for path in [
        "/api/v1/events?topic=**",
        "/api/v1/events?topic=x&tenant_id=a",
    ] {
        let seen = server.get(path, Some(&b)).json();
        assert_eq!(seen["events"].as_array().unwrap().len(), 1, "{path}");
        assert_eq!(seen["events"][0]["data"], "of b");
    }
    server
        .get(&format!("/api/v1/events?topic=x&after={mine}"), Some(&b))
        .is_problem(400, Some("after"));
    // The same id, subject or key in two tenants are two things.
    let event = json!({ "topic": "x", "type": "t", "data": 1, "id": "same" });
    assert_eq!(server.post("/api/v1/events", Some(&a), &event).status, 202);
    let other = json!({ "topic": "x", "type": "t", "data": 2, "id": "same" });
    assert_eq!(server.post("/api/v1/events", Some(&b), &other).status, 202);
    server
        .post("/api/v1/events", Some(&a), &other)
        .is_problem(409, Some("id"));
    assert_eq!(
        server
            .post(
                "/api/v1/admin/revocations",
                Some(&a),
                &json!({ "subject": "s" })
            )
            .status,
        201
    );
    assert_eq!(
        server
            .get("/api/v1/status", Some(&token_of("b", "s", &json!({}))))
            .status,
        200
    );
    server
        .get("/api/v1/status", Some(&token_of("a", "s", &json!({}))))
        .is_problem(401, None);
    assert_eq!(
        server.get("/api/v1/admin/revocations", Some(&b)).json()["revocations"],
        json!([])
    );
    let letter = json!({ "source": "s", "reason": "r", "content": "{}" });
    let id = server
        .post("/api/v1/dead-letters", Some(&a), &letter)
        .json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        server.get("/api/v1/dead-letters", Some(&b)).json()["dead_letters"],
        json!([])
    );
    server
        .post(
            &format!("/api/v1/dead-letters/{id}/retry"),
            Some(&b),
            &json!({}),
        )
        .is_problem(404, None);
    assert_ne!(
        server.get("/api/v1/status", Some(&a)).json()["log"]["head"],
        server.get("/api/v1/status", Some(&b)).json()["log"]["head"]
    );
    assert!(
        !server.get("/metrics", None).body.contains("tenant="),
        "no tenant in the metrics unless they are asked to"
    );
}

#[test]
fn the_policy_decides_by_scope_and_topic() {
    let server = Setup::default().start();
    let with = |scope: &str| token_of("a", "u", &json!({ "scope": scope }));
    let publish = |token: &str, topic: &str| {
        server
            .post(
                "/api/v1/events",
                Some(token),
                &json!({ "topic": topic, "type": "t", "data": 1 }),
            )
            .status
    };
    let subscribe = |token: &str, topic: &str| {
        server
            .get(&format!("/api/v1/poll?topic={topic}&wait=0"), Some(token))
            .status
    };
    let (reader, writer, nobody) = (with("events:read"), with("events:write"), with(""));
    for topic in ["x", "x/y/z"] {
        assert_eq!(
            (
                publish(&writer, topic),
                publish(&reader, topic),
                publish(&nobody, topic)
            ),
            (202, 403, 403)
        );
        assert_eq!(
            (
                subscribe(&reader, topic),
                subscribe(&writer, topic),
                subscribe(&nobody, topic)
            ),
            (200, 403, 403)
        );
    }
    for topic in [
        "alarms",
        "incidents",
        "alerts/patients/1",
        "vitals/1",
        "notifications/users/1",
        "devices/1/logs",
        "signals/x",
        "audit/x",
    ] {
        assert_eq!(publish(&writer, topic), 403, "{topic} is a module's own");
    }
    assert_eq!(subscribe(&reader, "audit/**"), 403);
    assert_eq!(
        subscribe(&reader, "**"),
        200,
        "a pattern delivers what is allowed"
    );
    // All or nothing: one topic that is forbidden refuses all.
    let batch = json!([{ "topic": "x", "type": "t", "data": 1 }, { "topic": "alarms", "type": "t", "data": 1 }]);
    server
        .post(
            "/api/v1/events",
            Some(&with("events:write events:read")),
            &batch,
        )
        .is_problem(403, Some("topic"));
}
