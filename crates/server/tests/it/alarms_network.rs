//! Entities, KPI samples and sleeping cells over HTTP.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Answer, Request, Server, Setup, admin, postgres, token_of};

/// Seconds of the system's clock, where a server's manual one starts.
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_secs()).unwrap()
}

fn at(secs: i64) -> String {
    tidings_core::clock::Timestamp::from_secs(secs).to_string()
}

fn send(server: &Server, method: &str, path: &str, token: &str, body: &str) -> Answer {
    let kind = if body.contains('\n') {
        "application/x-ndjson"
    } else {
        "application/json"
    };
    server.request(&Request {
        token: Some(token),
        headers: vec![("Content-Type", kind.into())],
        body: body.as_bytes().to_vec(),
        ..Request::new(method, path)
    })
}

fn put(server: &Server, path: &str, body: &Value) -> Answer {
    send(server, "PUT", path, &admin(), &body.to_string())
}

fn sample(entity_id: &str, secs: i64, value: f64) -> Value {
    json!({ "entity_id": entity_id, "metric_name": "traffic_volume", "value": value, "timestamp": at(secs) })
}

/// Samples every five minutes, the newest one at `end`.
fn usual(entity_id: &str, end: i64) -> Value {
    let one = |n: i64| sample(entity_id, end + (n - 40) * 300, 100.0 + (n % 3) as f64);
    (0..=40).map(one).collect()
}

fn add(server: &Server, body: &Value) {
    let answer = server.post("/api/v1/kpis", Some(&admin()), body);
    assert_eq!(answer.status, 202, "{}", answer.body);
}

fn detect(server: &Server) -> Value {
    let answer = server.post("/api/v1/sleeping-cells/detect", Some(&admin()), &json!({}));
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

/// Where a 422 says that the fault is: the member, and its place in a batch.
#[track_caller]
fn is_invalid(answer: &Answer, loc: &Value) {
    let first = loc.as_array().unwrap().iter().filter_map(Value::as_str);
    let field: Vec<&str> = first.skip(1).collect();
    answer.is_problem(422, Some(&field.join(".")));
    let document = answer.json();
    assert_eq!(document["detail"][0]["loc"], *loc, "{document}");
    assert!(document["detail"][0]["msg"].is_string() && document["detail"][0]["type"].is_string());
}

#[test]
fn an_entity_is_put_shown_listed_and_removed() {
    let server = Setup::default().start();
    let body = json!({ "entity_type": "CELL", "name": "one", "external_id": "x", "geo_lat": 1.5, "part_of": ["s"], "tenant_id": "b" });
    let created = put(&server, "/api/v1/entities/c%2F1%20%C3%BC", &body);
    assert_eq!(created.status, 201, "{}", created.body);
    let shown = created.json();
    assert_eq!(
        (&shown["id"], &shown["tenant_id"]),
        (&json!("c/1 ü"), &json!("a"))
    );
    assert_eq!(
        (&shown["part_of"], &shown["depends_on"]),
        (&json!(["s"]), &json!([]))
    );
    let got = server.get("/api/v1/entities/c%2F1%20%C3%BC/", Some(&admin()));
    assert_eq!(
        (got.status, got.json()),
        (200, shown.clone()),
        "with a slash at the end, too"
    );
    // What is shown can be sent back.
    let replaced = put(&server, "/api/v1/entities/c%2F1%20%C3%BC", &shown);
    assert_eq!(replaced.status, 200, "{}", replaced.body);
    assert_eq!(replaced.json()["created_at"], shown["created_at"]);
    let bulk: Vec<Value> = (0..5)
        .map(|n| json!({ "id": format!("b{n}"), "entity_type": "SITE" }))
        .collect();
    let answer = server.post("/api/v1/entities/bulk", Some(&admin()), &json!(bulk));
    assert_eq!((answer.status, answer.json()), (200, json!({ "count": 5 })));
    let list = |query: &str| {
        server
            .get(&format!("/api/v1/entities?{query}"), Some(&admin()))
            .json()
    };
    let ids = |list: &Value| {
        let ids = list["entities"].as_array().unwrap().iter();
        ids.map(|e| e["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let first = list("limit=4");
    assert_eq!(ids(&first), ["b4", "b3", "b2", "b1"]);
    let rest = list(&format!(
        "limit=4&after={}",
        first["cursor"].as_str().unwrap()
    ));
    assert_eq!(
        (ids(&rest), &rest["cursor"]),
        (vec!["b0".into(), "c/1 ü".into()], &Value::Null)
    );
    assert_eq!(ids(&list("entity_type=CELL&external_id=x")), ["c/1 ü"]);
    assert_eq!(ids(&list("entity_type=SITE&external_id=x")), [""; 0]);
    assert_eq!(
        ids(&list("entity_type=&external_id=&after=&limit=1000")).len(),
        6
    );
    for (query, field) in [
        ("limit=1001", "limit"),
        ("limit=0", "limit"),
        ("after=nonsense", "after"),
        ("entity_type=%00", "entity_type"),
    ] {
        let answer = server.get(&format!("/api/v1/entities?{query}"), Some(&admin()));
        answer.is_problem(400, Some(field));
    }
    let delete = |id: &str| {
        send(
            &server,
            "DELETE",
            &format!("/api/v1/entities/{id}"),
            &admin(),
            "",
        )
    };
    assert_eq!(delete("b0").status, 204);
    delete("b0").is_problem(404, None);
    server
        .get("/api/v1/entities/b0", Some(&admin()))
        .is_problem(404, None);
    server
        .get("/api/v1/entities/%00", Some(&admin()))
        .is_problem(404, None);
}

#[test]
fn what_is_no_entity_is_refused_by_its_member_and_nothing_is_stored() {
    let server = Setup::default().set("limits.batch=3").start();
    for (body, member) in [
        (json!({ "geo_lat": 91 }), "geo_lat"),
        (json!({ "geo_lon": -180.5 }), "geo_lon"),
        (json!({ "geo_lon": "8" }), "geo_lon"),
        (json!({ "entity_type": 5 }), "entity_type"),
        (json!({ "entity_type": "" }), "entity_type"),
        (json!({ "name": "a\0b" }), "name"),
        (json!({ "external_id": "x".repeat(2_000) }), "external_id"),
        (json!({ "revenue_weight": -0.1 }), "revenue_weight"),
        (
            json!({ "last_seen_at": "2026-02-23T21:20:00" }),
            "last_seen_at",
        ),
        (json!({ "depends_on": "s" }), "depends_on"),
        (json!({ "id": "other" }), "id"),
        (json!({ "colour": "red" }), "colour"),
    ] {
        is_invalid(
            &put(&server, "/api/v1/entities/c", &body),
            &json!(["body", member]),
        );
    }
    let answer = put(
        &server,
        "/api/v1/entities/c",
        &json!({ "part_of": ["s", 7] }),
    );
    is_invalid(&answer, &json!(["body", "part_of", 1]));
    is_invalid(
        &put(
            &server,
            &format!("/api/v1/entities/{}", "x".repeat(257)),
            &json!({}),
        ),
        &json!(["body", "id"]),
    );
    is_invalid(
        &put(&server, "/api/v1/entities/%00", &json!({})),
        &json!(["body", "id"]),
    );
    let raw = |body: &str| send(&server, "PUT", "/api/v1/entities/c", &admin(), body);
    raw("{").is_problem(400, None);
    raw("").is_problem(400, None);
    raw(r#"{"geo_lat":1e999}"#).is_problem(400, None);
    raw(&format!("{}1{}", "[".repeat(100), "]".repeat(100))).is_problem(400, None);
    is_invalid(&raw("[]"), &json!(["body"]));
    let bulk = |body: &Value| server.post("/api/v1/entities/bulk", Some(&admin()), body);
    is_invalid(
        &bulk(&json!([{ "id": "a" }, { "name": "b" }])),
        &json!(["body", 1, "id"]),
    );
    is_invalid(
        &bulk(&json!([{ "id": "a" }, { "id": "b" }, { "id": "a" }])),
        &json!(["body", 2, "id"]),
    );
    is_invalid(&bulk(&json!([{ "id": "a" }, 5])), &json!(["body", 1]));
    bulk(&json!([{}, {}, {}, {}])).is_problem(413, None);
    let plain = Request {
        token: Some(&admin()),
        headers: vec![("Content-Type", "text/plain".into())],
        body: b"{}".to_vec(),
        ..Request::new("PUT", "/api/v1/entities/c")
    };
    server.request(&plain).is_problem(415, Some("Content-Type"));
    let list = server.get("/api/v1/entities", Some(&admin())).json();
    assert_eq!(list, json!({ "entities": [], "cursor": null }));
}

#[test]
fn samples_are_taken_in_every_form_and_read_by_range_and_step() {
    let server = Setup::default().start();
    put(&server, "/api/v1/entities/c", &json!({}));
    let start = now() / 3_600 * 3_600 - 7_200;
    let token = admin();
    let kpis = |body: &str| send(&server, "POST", "/api/v1/kpis", &token, body);
    let one = sample("c", start, 1.25);
    assert_eq!(kpis(&one.to_string()).json(), json!({ "count": 1 }));
    let two = json!([
        sample("c", start + 60, 2.0),
        sample("c", start + 3_600, 4.0)
    ]);
    assert_eq!(kpis(&two.to_string()).json(), json!({ "count": 2 }));
    let lines = format!(
        "{}\n\n{}\n",
        sample("c", start + 120, 3.0),
        sample("c", start + 120, 3.5)
    );
    let answer = kpis(&lines);
    assert_eq!(
        (answer.status, answer.json()),
        (202, json!({ "count": 2 })),
        "the last one stands"
    );
    let read = |more: &str| {
        let path = format!("/api/v1/kpis?entity_id=c&metric=traffic_volume{more}");
        server.get(&path, Some(&token))
    };
    let samples = |more: &str| read(more).json()["samples"].clone();
    let point = |secs: i64, value: f64| json!({ "timestamp": at(start + secs), "value": value });
    let all = [
        point(0, 1.25),
        point(60, 2.0),
        point(120, 3.5),
        point(3_600, 4.0),
    ];
    assert_eq!(samples(""), json!(all));
    let range = format!("&from={}&to={}", at(start + 60), at(start + 3_600));
    assert_eq!(samples(&range), json!(all[1..3]));
    let offset = format!("&from={}", at(start + 3_600).replace('Z', "+00:00"));
    assert_eq!(
        samples(&offset),
        json!(all[3..]),
        "the plus of an offset as it stands"
    );
    let hour = |secs: i64, value: f64, min: f64, max: f64, count: u64| json!({ "timestamp": at(start + secs), "value": value, "min": min, "max": max, "count": count });
    assert_eq!(
        samples("&step=3600"),
        json!([hour(0, 2.25, 1.25, 3.5, 3), hour(3_600, 4.0, 4.0, 4.0, 1)])
    );
    assert_eq!(samples("&step=3600&metric=").as_array().unwrap().len(), 2);
    for (query, field) in [
        ("entity_id=c", "metric"),
        ("metric=m", "entity_id"),
        ("entity_id=c&metric=m&step=0", "step"),
        ("entity_id=c&metric=m&step=1.5", "step"),
        ("entity_id=c&metric=m&from=yesterday", "from"),
        ("entity_id=c&metric=m&to=2026-01-01", "to"),
    ] {
        server
            .get(&format!("/api/v1/kpis?{query}"), Some(&token))
            .is_problem(400, Some(field));
    }
    server
        .get("/api/v1/kpis?entity_id=d&metric=m", Some(&token))
        .is_problem(404, None);
}

#[test]
fn what_is_no_sample_is_refused_by_its_member_and_nothing_is_stored() {
    let server = Setup::default().start();
    put(&server, "/api/v1/entities/c", &json!({}));
    let token = admin();
    let good = sample("c", now(), 1.0);
    for (member, wrong) in [
        ("entity_id", json!(null)),
        ("entity_id", json!(["c"])),
        ("metric_name", json!("")),
        ("value", json!(null)),
        ("value", json!("NaN")),
        ("value", json!("-Infinity")),
        ("value", json!("1")),
        ("timestamp", json!("now")),
        ("timestamp", json!(at(now() + 3_600))),
        ("source", json!(1)),
        ("unit", json!("GB")),
    ] {
        let mut bad = good.clone();
        bad[member] = wrong;
        let alone = server.post("/api/v1/kpis", Some(&token), &bad);
        is_invalid(&alone, &json!(["body", member]));
        let batch = server.post("/api/v1/kpis", Some(&token), &json!([good, bad]));
        is_invalid(&batch, &json!(["body", 1, member]));
        let lines = send(
            &server,
            "POST",
            "/api/v1/kpis",
            &token,
            &format!("{good}\n\n{bad}\n"),
        );
        is_invalid(&lines, &json!(["body", 1, member]));
    }
    for no_json in ["NaN", "Infinity", "1e999"] {
        let body = good.to_string().replace("1.0", no_json);
        send(&server, "POST", "/api/v1/kpis", &token, &body).is_problem(400, None);
    }
    let mixed = json!([good, sample("nobody", now(), 1.0)]);
    let answer = server.post("/api/v1/kpis", Some(&token), &mixed);
    answer.is_problem(404, None);
    assert!(answer.json()["detail"].as_str().unwrap().contains("nobody"));
    let path = "/api/v1/kpis?entity_id=c&metric=traffic_volume";
    assert_eq!(
        server.get(path, Some(&token)).json(),
        json!({ "samples": [] })
    );
}

#[test]
fn nothing_of_the_network_crosses_tenants() {
    let server = Setup::default().start();
    put(&server, "/api/v1/entities/c", &json!({ "name": "a's" }));
    let end = now();
    add(&server, &usual("c", end));
    add(&server, &json!([sample("c", end + 1, 0.0)]));
    assert_eq!(detect(&server)["detected"], 1);
    let b = token_of("b", "root", &json!({ "roles": ["admin"] }));
    server
        .get("/api/v1/entities/c", Some(&b))
        .is_problem(404, None);
    send(&server, "DELETE", "/api/v1/entities/c", &b, "").is_problem(404, None);
    let path = "/api/v1/kpis?entity_id=c&metric=traffic_volume&tenant_id=a";
    server.get(path, Some(&b)).is_problem(404, None);
    server
        .get(&format!("{path}&step=60"), Some(&b))
        .is_problem(404, None);
    let theirs = server.post("/api/v1/kpis", Some(&b), &sample("c", end, 1.0));
    theirs.is_problem(404, None);
    for path in [
        "/api/v1/entities?tenant_id=a",
        "/api/v1/entities?entity_type=&tenant=a",
    ] {
        assert_eq!(server.get(path, Some(&b)).json()["entities"], json!([]));
    }
    let cells = server
        .get("/api/v1/sleeping-cells?tenant_id=a", Some(&b))
        .json();
    assert_eq!(cells, json!({ "sleeping_cells": [] }));
    let scanned = server.post("/api/v1/sleeping-cells/detect", Some(&b), &json!({}));
    assert_eq!(scanned.json()["detected"], 0);
    // The same id is another thing there, and its end is not the first one's.
    assert_eq!(
        send(&server, "PUT", "/api/v1/entities/c", &b, "{}").status,
        201
    );
    let bulk = json!([{ "id": "c", "name": "b's", "tenant_id": "a" }]);
    assert_eq!(
        server.post("/api/v1/entities/bulk", Some(&b), &bulk).status,
        200
    );
    assert_eq!(server.get(path, Some(&b)).json()["samples"], json!([]));
    assert_eq!(
        send(&server, "DELETE", "/api/v1/entities/c", &b, "").status,
        204
    );
    let mine = server.get("/api/v1/entities/c", Some(&admin())).json();
    assert_eq!(mine["name"], "a's");
    let samples = server.get(path, Some(&admin())).json();
    assert_eq!(samples["samples"].as_array().unwrap().len(), 42);
    let cells = server.get("/api/v1/sleeping-cells", Some(&admin())).json();
    assert_eq!(cells["sleeping_cells"].as_array().unwrap().len(), 1);
}

#[test]
fn each_path_needs_its_scope() {
    let server = Setup::default().start();
    let calls = [
        ("PUT", "/api/v1/entities/c", "topology:write"),
        ("POST", "/api/v1/entities/bulk", "topology:write"),
        ("GET", "/api/v1/entities/c", "topology:read"),
        ("GET", "/api/v1/entities", "topology:read"),
        ("POST", "/api/v1/kpis", "metrics:write"),
        ("GET", "/api/v1/kpis?entity_id=c&metric=m", "metrics:read"),
        ("GET", "/api/v1/sleeping-cells", "alarm:read"),
        ("GET", "/api/v1/sleeping-cells", "metrics:read"),
        ("POST", "/api/v1/sleeping-cells/detect", "metrics:write"),
        ("POST", "/api/v1/sleeping-cells/detect", "alarm:write"),
        ("DELETE", "/api/v1/entities/c", "topology:write"),
    ];
    let with = |scope: &str| token_of("a", "u", &json!({ "scope": scope }));
    for (method, path, scope) in calls {
        let body = if path.ends_with("bulk") || path.ends_with("kpis") {
            "[]"
        } else {
            "{}"
        };
        let answer = send(&server, method, path, &with(scope), body);
        assert!(
            (200..300).contains(&answer.status),
            "{method} {path} {scope}: {}",
            answer.body
        );
        for other in ["events:read events:write", "topology:read metrics:read"] {
            if other.contains(scope)
                || path.starts_with("/api/v1/sleeping-cells") && method == "GET"
            {
                continue;
            }
            send(&server, method, path, &with(other), body).is_problem(403, None);
        }
        let nobody = server.request(&Request::new(method, path));
        nobody.is_problem(401, None);
    }
}

#[test]
fn a_sleeping_cell_is_pushed_once_and_survives_a_restart() {
    for database_url in [None, postgres()] {
        let server = Setup {
            database_url,
            ..Setup::default()
        }
        .start();
        put(&server, "/api/v1/entities/c", &json!({}));
        let mut stream = server.stream("topic=alarms", &admin(), None);
        stream.until("connected");
        let end = now() - 60;
        add(&server, &usual("c", end));
        assert_eq!(
            detect(&server),
            json!({ "detected": 0, "recovered": 0, "sleeping_cells": [] })
        );
        add(&server, &sample("c", end + 30, 2.5));
        let found = detect(&server);
        let cell = &found["sleeping_cells"][0];
        assert_eq!(
            (&found["detected"], &cell["entity_id"]),
            (&json!(1), &json!("c"))
        );
        assert_eq!(
            (&cell["since"], &cell["cause"]),
            (&json!(at(end + 30)), &json!("low"))
        );
        assert_eq!(
            (&cell["status"], &cell["decay_score"]),
            (&json!("SLEEPING"), &json!(1.0))
        );
        let event = stream.until("sleeping_cell_detected").json()["data"].clone();
        for (member, value) in [
            ("event_type", json!("sleeping_cell_detected")),
            ("tenant_id", json!("a")),
            ("entity_id", json!("c")),
            ("metric_name", json!("traffic_volume")),
            ("current_value", json!(2.5)),
        ] {
            assert_eq!(event[member], value, "{event}");
        }
        assert!(event["z_score"].as_f64().unwrap() < -3.0 && event["baseline_mean"].is_f64());
        assert!(event["event_id"].is_string() && event["timestamp"].is_string());
        drop(stream);
        let (folder, setup) = server.kill();
        let server = Server::start(folder, setup);
        assert_eq!(detect(&server)["detected"], 0, "not again");
        let cells = server.get("/api/v1/sleeping-cells/", Some(&admin())).json();
        assert_eq!(cells["sleeping_cells"][0]["current_value"], 2.5);
        let mut stream = server.stream("topic=alarms", &admin(), None);
        stream.until("connected");
        add(&server, &sample("c", end + 60, 101.0));
        assert_eq!(
            detect(&server),
            json!({ "detected": 0, "recovered": 1, "sleeping_cells": [] })
        );
        let event = stream.until("sleeping_cell_recovered").json()["data"].clone();
        assert_eq!(
            (&event["current_value"], &event["slept_seconds"]),
            (&json!(101.0), &json!(30))
        );
    }
}

#[test]
fn the_worker_notices_silence_by_itself_and_tells_no_nan() {
    let server = Setup::default().manual_clock().start();
    put(&server, "/api/v1/entities/c", &json!({}));
    put(&server, "/api/v1/entities/gone", &json!({}));
    let end = now();
    add(&server, &usual("c", end));
    add(&server, &usual("gone", end));
    assert_eq!(
        send(&server, "DELETE", "/api/v1/entities/gone", &admin(), "").status,
        204
    );
    let mut stream = server.stream("topic=alarms&named=true", &admin(), None);
    stream.until("connected");
    server.advance(Duration::from_secs(1_300));
    let frame = stream.until("sleeping_cell_detected");
    assert!(!frame.data.contains("NaN"));
    let event = frame.json()["data"].clone();
    assert_eq!(
        (&event["z_score"], &event["current_value"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(event["entity_id"], "c");
    let cells = server.get("/api/v1/sleeping-cells", Some(&admin())).json();
    assert_eq!(cells["sleeping_cells"][0]["cause"], "silence");
    assert_eq!(
        (
            &cells["sleeping_cells"][0]["z_score"],
            &cells["sleeping_cells"][0]["status"]
        ),
        (&Value::Null, &json!("SLEEPING"))
    );
    // Three more scans say nothing more, then it is back.
    for _ in 0..3 {
        server.advance(Duration::from_secs(301));
        detect(&server);
    }
    add(&server, &sample("c", end + 2_200, 100.0));
    server.advance(Duration::from_secs(301));
    let next = loop {
        let frame = stream.next().unwrap();
        if frame.event.starts_with("sleeping") {
            break frame;
        }
    };
    assert_eq!(next.event, "sleeping_cell_recovered", "{next:?}");
    assert_eq!(next.json()["data"]["slept_seconds"], 2_200);
}

#[test]
fn samples_do_not_outlive_their_age() {
    let server = Setup::default()
        .set("kpis.max_age=1h")
        .manual_clock()
        .start();
    put(&server, "/api/v1/entities/c", &json!({}));
    add(&server, &usual("c", now()));
    let path = "/api/v1/kpis?entity_id=c&metric=traffic_volume";
    let count = || {
        server.get(path, Some(&admin())).json()["samples"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(count(), 41);
    server.advance(Duration::from_secs(1_800));
    crate::support::eventually("old samples are gone", || count() <= 7);
    server.advance(Duration::from_secs(1_700));
    crate::support::eventually("all but the newest are gone", || count() == 1);
}
