//! Denied writes of the alarms module are told to the auditor, and to nobody else.

use serde_json::{Value, json};

use crate::support::{Request, Server, Setup, admin, token_of};

const SECRET_ID: &str = "tok-5f3a";

fn put(server: &Server, token: &str, body: &Value) -> u16 {
    let path = format!("/api/v1/entities/{SECRET_ID}");
    let headers = vec![("Content-Type", "application/json".to_owned())];
    let request = Request {
        token: Some(token),
        headers,
        body: body.to_string().into_bytes(),
        ..Request::new("PUT", &path)
    };
    server.request(&request).status
}

#[test]
fn a_denied_write_is_told_on_the_audit_topic_by_who_what_and_where() {
    let server = Setup::default().start();
    let viewer = token_of("a", "vera", &json!({ "role": "viewer" }));
    // What may be read is nobody's business, and a write of who may is none either.
    let read = server.get("/api/v1/entities/x", Some(&viewer));
    assert_eq!(read.status, 404, "{}", read.body);
    assert_eq!(put(&server, &viewer, &json!({})), 403);
    let path = "/api/v1/events?topic=audit/alarms";
    let told = server.get(path, Some(&admin())).json();
    let events = told["events"].as_array().unwrap();
    assert_eq!(events.len(), 1, "{told}");
    let (event, data) = (&events[0], &events[0]["data"]);
    assert_eq!(event["type"], "access_denied");
    assert_eq!(event["id"], data["event_id"]);
    for (member, expected) in [
        ("event_type", json!("access_denied")),
        ("tenant_id", json!("a")),
        ("actor", json!("vera")),
        ("action", json!("topology_write")),
        ("method", json!("PUT")),
        ("path", json!("/api/v1/entities/{id}")),
        ("untold_before", json!(0)),
    ] {
        assert_eq!(data[member], expected, "{member}");
    }
    assert!(!told.to_string().contains(SECRET_ID));
    // Neither the viewer nor another tenant's administrator sees it.
    let by_viewer = server.get(path, Some(&viewer));
    by_viewer.is_problem(403, Some("topic"));
    let other = token_of("b", "root", &json!({ "roles": ["admin"] }));
    let theirs = server.get(path, Some(&other)).json();
    assert_eq!(theirs["events"], json!([]));
}

#[test]
fn who_is_denied_all_day_long_does_not_fill_the_log() {
    let server = Setup::default().manual_clock().start();
    let viewer = token_of("a", "vera", &json!({ "role": "viewer" }));
    let events = || {
        let path = "/api/v1/events?topic=audit/alarms&limit=1000";
        let page = server.get(path, Some(&admin())).json();
        page["events"].as_array().unwrap().clone()
    };
    for _ in 0..70 {
        assert_eq!(put(&server, &viewer, &json!({})), 403);
    }
    assert_eq!(events().len(), 60);
    server.advance(std::time::Duration::from_secs(60));
    assert_eq!(put(&server, &viewer, &json!({})), 403);
    let all = events();
    assert_eq!(all.len(), 61);
    assert_eq!(all[60]["data"]["untold_before"], 10);
}
