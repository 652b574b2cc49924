//! A stream's life on a clock that the test moves: heartbeat, idle, the token's end, revocation, policies, refresh, DELETE.

use std::time::Duration;

use serde_json::json;

use crate::support::{
    Request, SECRET, Server, Setup, Sse, admin, eventually, sign, token_of, user,
};

fn reason(stream: &mut Sse) -> String {
    let closing = stream.until("closing");
    assert_eq!(closing.retry, closing.json()["retry_ms"].as_u64());
    stream.ends();
    closing.json()["reason"].as_str().unwrap().to_owned()
}

fn opened(server: &Server, query: &str, token: &str) -> Sse {
    let mut stream = server.stream(query, token, None);
    assert_eq!(stream.head.status, 200, "{:?}", stream.head);
    let connected = stream.until("connected");
    assert!((1_000..=3_000).contains(&connected.retry.unwrap()));
    assert_eq!(connected.id, connected.json()["cursor"].as_str().unwrap());
    stream
}

#[test]
fn silence_is_broken_by_heartbeats_and_checkpoints() {
    let server = Setup::default().manual_clock().start();
    let mut stream = opened(&server, "topic=x", &user("u"));
    server.advance(Duration::from_secs(29));
    server.publish(&user("u"), "x", &json!(1));
    assert_eq!(stream.data(1), [1], "no heartbeat came before");
    server.advance(Duration::from_secs(29));
    server.advance(Duration::from_secs(2));
    assert_eq!(stream.next().unwrap().data, "heartbeat");
    // The log moves on with what does not concern this stream.
    let cursor = server.publish(&user("u"), "y", &json!(2));
    server.advance(Duration::from_secs(31));
    let checkpoint = stream.next().unwrap();
    assert_eq!(
        (checkpoint.event.as_str(), checkpoint.id.as_str()),
        ("checkpoint", cursor.as_str())
    );
    assert_eq!(checkpoint.json(), json!({ "cursor": cursor }));
    server.advance(Duration::from_secs(31));
    assert_eq!(stream.next().unwrap().data, "heartbeat", "nothing moved");
}

#[test]
fn an_idle_stream_is_closed_whatever_its_heartbeats() {
    let server = Setup::default()
        .set("stream.idle=100s")
        .manual_clock()
        .start();
    let mut stream = opened(&server, "topic=x", &user("u"));
    for _ in 0..3 {
        server.advance(Duration::from_secs(31));
        assert_eq!(stream.next().unwrap().data, "heartbeat");
    }
    server.advance(Duration::from_secs(10));
    assert_eq!(reason(&mut stream), "idle");
}

#[test]
fn a_stream_ends_with_its_token_unless_it_is_refreshed() {
    let server = Setup::default().manual_clock().start();
    let token = |subject: &str, ttl: u64| {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let claims = json!({ "tenant_id": "a", "sub": subject, "scope": "events:read events:write", "exp": now + ttl, "iat": now });
        sign(&claims, SECRET)
    };
    let mut short = opened(&server, "topic=x", &token("u", 60));
    let mut refreshed = server.stream("topic=x", &token("u", 60), None);
    let id = refreshed.until("connected").json()["connection_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/api/v1/connections/{id}/token");
    let caller = token("u", 3_600);
    server
        .post(&path, Some(&caller), &json!({ "token": "nonsense" }))
        .is_problem(422, Some("token"));
    server
        .post(&path, Some(&caller), &json!({ "token": token("v", 600) }))
        .is_problem(403, Some("token"));
    let other_tenant = token_of("b", "u", &json!({}));
    server
        .post(&path, Some(&caller), &json!({ "token": other_tenant }))
        .is_problem(403, Some("token"));
    server
        .post(&path, Some(&other_tenant), &json!({ "token": caller }))
        .is_problem(404, None);
    server
        .post(&path, Some(&token("v", 600)), &json!({ "token": caller }))
        .is_problem(404, None);
    assert_eq!(
        server
            .post(&path, Some(&caller), &json!({ "token": token("u", 600) }))
            .status,
        200
    );
    server.advance(Duration::from_secs(85));
    server.publish(&caller, "x", &json!(1));
    assert_eq!(short.data(1), [1], "within the leeway");
    server.advance(Duration::from_secs(10));
    assert_eq!(reason(&mut short), "token_expired");
    server.publish(&caller, "x", &json!(2));
    assert_eq!(refreshed.data(2), [1, 2]);
    server
        .get("/api/v1/stream?topic=x", Some(&token("u", 0)))
        .is_problem(401, None);
}

#[test]
fn revocation_reaches_open_streams() {
    let server = Setup::default().start();
    let with_id = token_of("a", "u", &json!({ "scope": "events:read", "jti": "one" }));
    let (mut by_id, mut by_subject) = (
        opened(&server, "topic=x", &with_id),
        opened(&server, "topic=x", &user("v")),
    );
    let mut stays = opened(&server, "topic=x", &user("u"));
    let revoke = |body| server.post("/api/v1/admin/revocations", Some(&admin()), &body);
    server
        .post(
            "/api/v1/admin/revocations",
            Some(&user("u")),
            &json!({ "subject": "v" }),
        )
        .is_problem(403, None);
    revoke(json!({})).is_problem(422, Some("subject"));
    revoke(json!({ "subject": "a", "token_id": "b" })).is_problem(422, Some("subject"));
    revoke(json!({ "subject": "a", "more": 1 })).is_problem(422, Some("more"));
    let made = revoke(json!({ "token_id": "one", "reason": "lost" }));
    assert_eq!(made.status, 201);
    assert_eq!(revoke(json!({ "subject": "v" })).status, 201);
    assert_eq!(reason(&mut by_id), "revoked");
    assert_eq!(reason(&mut by_subject), "revoked");
    server
        .get("/api/v1/status", Some(&with_id))
        .is_problem(401, None);
    server.publish(&admin(), "x", &json!(1));
    assert_eq!(stays.data(1), [1]);
    // Durable, and to be undone.
    let (folder, setup) = server.kill();
    let server = Server::start(folder, setup);
    server
        .get("/api/v1/status", Some(&with_id))
        .is_problem(401, None);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let list = server
        .get("/api/v1/admin/revocations", Some(&admin()))
        .json();
    assert_eq!(list["revocations"].as_array().unwrap().len(), 2);
    let path = format!("/api/v1/admin/revocations/{id}");
    let (root, other) = (
        admin(),
        token_of("b", "root", &json!({ "roles": ["admin"] })),
    );
    let undo = |token| {
        server.request(&Request {
            token: Some(token),
            ..Request::new("DELETE", &path)
        })
    };
    undo(&other).is_problem(404, None);
    assert_eq!(undo(&root).status, 204);
    undo(&root).is_problem(404, None);
    assert_eq!(server.get("/api/v1/status", Some(&with_id)).status, 200);
}

#[test]
fn a_change_of_policies_narrows_or_closes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.cedar");
    let allow = |prefixes: &str| {
        let text = format!(
            "permit (principal, action, resource) when {{ [{prefixes}].contains(resource.prefix) }};"
        );
        // Renamed into place, as editors and mounts do.
        std::fs::write(folder.path().join("new"), text).unwrap();
        std::fs::rename(folder.path().join("new"), &file).unwrap();
    };
    allow("\"x\", \"y\"");
    let server = Setup::default()
        .set(&format!("policies={}", folder.path().display()))
        .start();
    let mut both = opened(&server, "topic=x&topic=y", &user("u"));
    let mut only_y = opened(&server, "topic=y", &user("u"));
    let mut all = opened(&server, "topic=**", &user("u"));
    std::fs::write(&file, "permit (").unwrap();
    eventually("the bad set is refused", || {
        server.metric("tidings_policy_reloads_total{result=\"refused\"}") >= 1.0
    });
    server.publish(&user("u"), "y", &json!(1));
    assert_eq!(both.data(1), [1], "the running set stays");
    allow("\"x\"");
    let lost = both.until("unsubscribed");
    assert_eq!(
        lost.json(),
        json!({ "topics": ["y"], "reason": "forbidden" })
    );
    assert_eq!(reason(&mut only_y), "forbidden");
    server
        .post(
            "/api/v1/events",
            Some(&user("u")),
            &json!({ "topic": "y", "type": "t", "data": 2 }),
        )
        .is_problem(403, Some("topic"));
    server.publish(&user("u"), "x", &json!(3));
    assert_eq!(both.data(1), [3]);
    assert_eq!(all.data(2), [1, 3], "a pattern delivers what is allowed");
}

#[test]
fn a_connection_is_listed_and_closed_by_whom_it_concerns() {
    let server = Setup::default().start();
    let mut stream = server.stream("topic=x/*&topic=y", &user("u"), None);
    let id = stream.until("connected").json()["connection_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let list =
        |token: &str| server.get("/api/v1/connections", Some(token)).json()["connections"].clone();
    let shown = list(&user("u"));
    assert_eq!(shown[0]["connection_id"], id.as_str());
    assert_eq!(
        (
            &shown[0]["transport"],
            &shown[0]["kind"],
            &shown[0]["topics"]
        ),
        (&json!("sse"), &json!("native"), &json!(["x/*", "y"]))
    );
    assert_eq!(list(&user("v")), json!([]));
    assert_eq!(
        list(&token_of("b", "u", &json!({ "roles": ["admin"] }))),
        json!([])
    );
    assert_eq!(
        list(&token_of("a", "w", &json!({ "scope": "connections:read" })))[0]["connection_id"],
        id.as_str()
    );
    assert_eq!(list(&admin())[0]["connection_id"], id.as_str());
    let delete = |token: &str| {
        server.request(&Request {
            token: Some(token),
            ..Request::new("DELETE", &format!("/api/v1/connections/{id}"))
        })
    };
    delete(&user("v")).is_problem(404, None);
    delete(&token_of("b", "u", &json!({ "roles": ["admin"] }))).is_problem(404, None);
    assert_eq!(delete(&user("u")).status, 204);
    assert_eq!(reason(&mut stream), "closed");
    eventually("it is gone", || list(&admin()) == json!([]));
    delete(&user("u")).is_problem(404, None);
}
