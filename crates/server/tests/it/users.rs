//! Local users: added on the command line, signed in over HTTP, on both databases.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::tidings;
use crate::support::{Answer, Request, SECRET, Server, Setup, admin, postgres, token_of};

const PASSWORD: &str = "correct horse battery";

/// Runs `tidings user` on a server's database, with a line on standard input.
#[track_caller]
fn user(server: &Server, words: &[&str], input: &str, code: i32) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    command.arg("user").args(words).arg("--data-dir");
    command.arg(server.folder.path());
    if let Some(url) = &server.setup.database_url {
        command.args(["--set", &format!("database_url={url}")]);
    }
    command.env("TIDINGS_AUTH_JWT_SECRET", SECRET);
    command.env("TIDINGS_AUTH_LOCAL_USERS", "true");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // One that is refused does not read it.
    let _ = std::io::Write::write_all(&mut stdin, format!("{input}\n").as_bytes());
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    assert!(!out.contains(input) && !err.contains(input) || input.is_empty());
    (out, err)
}

fn add(server: &Server, name: &str, more: &[&str]) {
    let words = [&["add", name], more].concat();
    user(server, &words, PASSWORD, 0);
}

fn sign_in(server: &Server, form: &str) -> Answer {
    let headers = vec![(
        "Content-Type",
        "application/x-www-form-urlencoded".to_owned(),
    )];
    server.request(&Request {
        headers,
        body: form.as_bytes().to_vec(),
        ..Request::new("POST", "/api/v1/auth/token")
    })
}

/// Signs in with the password that everybody has here.
#[track_caller]
fn signed_in(server: &Server, name: &str) -> Value {
    let form = format!("grant_type=password&username={name}&password=correct+horse%20battery");
    let answer = sign_in(server, &form);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("cache-control"), "no-store");
    answer.json()
}

fn token(answer: &Value) -> &str {
    answer["access_token"].as_str().unwrap()
}

fn with_users() -> Setup {
    Setup::default().set("auth.local_users=true")
}

fn claims(token: &str) -> Value {
    let key = jsonwebtoken::DecodingKey::from_secret(SECRET.as_bytes());
    let mut checks = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
    checks.validate_exp = false;
    jsonwebtoken::decode(token, &key, &checks).unwrap().claims
}

#[test]
fn a_user_signs_in_chooses_a_tenant_and_stays_on_either_database() {
    let mut databases = vec![None];
    databases.extend(postgres().map(Some));
    for database_url in databases {
        let setup = Setup {
            database_url,
            ..with_users()
        };
        let server = setup.start();
        add(
            &server,
            "ann",
            &["--role", "operator", "--tenant", "a=Acme Networks"],
        );
        add(
            &server,
            "bob",
            &["--role", "viewer", "--tenant", "b", "--tenant", "a=Acme"],
        );
        let ann = signed_in(&server, "ann");
        assert_eq!(
            (&ann["token_type"], &ann["role"]),
            (&json!("bearer"), &json!("operator"))
        );
        assert_eq!(
            ann["tenants"],
            json!([{ "id": "a", "display_name": "Acme Networks" }])
        );
        assert_eq!(
            (&ann["tenant_id"], &ann["must_change_password"]),
            (&json!("a"), &json!(false))
        );
        let scopes = ann["scopes"].as_array().unwrap();
        assert!(scopes.contains(&json!("tmf642:alarm:write")));
        assert!(!scopes.contains(&json!("incident:close")));
        let said = claims(token(&ann));
        assert_eq!(said["username"], "ann");
        assert_eq!(
            (&said["sub"], &said["role"]),
            (&said["user_id"], &json!("operator"))
        );
        assert_eq!(
            (&said["scopes"], &said["tenant_id"]),
            (&ann["scopes"], &json!("a"))
        );
        let lifetime = said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap();
        assert_eq!(lifetime, 30 * 60);
        assert_eq!(server.get("/api/v1/status", Some(token(&ann))).status, 200);
        // Of two tenants none is chosen, and no default stands in.
        let bob = signed_in(&server, "bob");
        assert_eq!(bob["tenant_id"], Value::Null);
        let status = server.get("/api/v1/status", Some(token(&bob)));
        status.is_problem(403, None);
        let tenants = server.get("/api/v1/auth/tenants", Some(token(&bob)));
        assert_eq!(
            tenants.json(),
            json!([{ "id": "a", "display_name": "Acme" }, { "id": "b", "display_name": "b" }])
        );
        let select = |tenant: &str| {
            let body = json!({ "tenant_id": tenant });
            server.post("/api/v1/auth/select-tenant", Some(token(&bob)), &body)
        };
        let selected = select("a").json();
        assert_eq!(
            (&selected["tenant_id"], &selected["tenant_name"]),
            (&json!("a"), &json!("Acme"))
        );
        assert_eq!(
            (&selected["role"], &selected["token_type"]),
            (&json!("viewer"), &json!("bearer"))
        );
        assert_eq!(selected["scopes"], bob["scopes"]);
        assert_eq!(claims(token(&selected))["tenant_id"], "a");
        assert_eq!(
            server.get("/api/v1/status", Some(token(&selected))).status,
            200
        );
        select("c").is_problem(403, Some("tenant_id"));
        let form = "username=bob&password=correct+horse+battery&tenant_id=";
        assert_eq!(
            sign_in(&server, &format!("{form}b")).json()["tenant_id"],
            "b"
        );
        sign_in(&server, &format!("{form}c")).is_problem(403, Some("tenant_id"));
        // A fresh token is of the same tenant, or of none as before.
        for old in [&ann, &bob, &selected] {
            let answer = server.post("/api/v1/auth/refresh", Some(token(old)), &json!({}));
            let fresh = answer.json();
            assert_eq!(fresh["token_type"], "bearer", "{}", answer.body);
            let (old, new) = (claims(token(old)), claims(token(&fresh)));
            assert_eq!(
                (&old["tenant_id"], &old["sub"]),
                (&new["tenant_id"], &new["sub"])
            );
            assert_ne!(old["jti"], new["jti"]);
        }
    }
}

#[test]
fn what_is_wrong_is_refused_and_says_no_more_than_it_must() {
    let server = with_users().start();
    add(&server, "ann", &["--role", "viewer", "--tenant", "a"]);
    let wrong = sign_in(&server, "username=ann&password=wrong+horse");
    let unknown = sign_in(&server, "username=eve&password=wrong+horse");
    for answer in [&wrong, &unknown] {
        answer.is_problem(401, None);
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    assert_eq!(wrong.json()["detail"], unknown.json()["detail"]);
    let missing = sign_in(&server, "username=ann");
    missing.is_problem(422, Some("password"));
    assert_eq!(
        missing.json()["detail"],
        json!([{ "loc": ["body", "password"], "msg": "is required", "type": "missing" }])
    );
    let as_json = json!({ "username": "ann", "password": PASSWORD });
    let as_json = server.post("/api/v1/auth/token", None, &as_json);
    as_json.is_problem(415, Some("Content-Type"));
    // A token of somebody who is no user here, though the same secret signed it, and no token at all.
    for path in ["refresh", "select-tenant", "change-password"] {
        let path = format!("/api/v1/auth/{path}");
        server
            .post(&path, Some(&admin()), &json!({}))
            .is_problem(401, None);
        server.post(&path, None, &json!({})).is_problem(401, None);
    }
    let named = token_of("a", "ann", &json!({}));
    server
        .get("/api/v1/auth/tenants", Some(&named))
        .is_problem(401, None);
    let ann = signed_in(&server, "ann");
    let select = |body: Value| server.post("/api/v1/auth/select-tenant", Some(token(&ann)), &body);
    select(json!({})).is_problem(422, Some("tenant_id"));
    select(json!({ "tenant_id": 7 })).is_problem(422, Some("tenant_id"));
    select(json!({ "tenant_id": "a", "x": 1 })).is_problem(422, Some("x"));
    let off = Setup::default().start();
    sign_in(&off, "username=ann&password=x").is_problem(404, None);
    off.get("/api/v1/auth/tenants", Some(&admin()))
        .is_problem(404, None);
}

#[test]
fn a_password_is_changed_by_its_owner_and_old_tokens_end_with_it() {
    let server = with_users().manual_clock().start();
    add(
        &server,
        "ann",
        &[
            "--role",
            "viewer",
            "--tenant",
            "a",
            "--must-change-password",
        ],
    );
    let other = signed_in(&server, "ann");
    assert_eq!(other["must_change_password"], true);
    let ann = signed_in(&server, "ann");
    server.advance(Duration::from_secs(60));
    let change = |current: &str, new: &str| {
        let body = json!({ "current_password": current, "new_password": new });
        server.post("/api/v1/auth/change-password", Some(token(&ann)), &body)
    };
    change("wrong horse battery", "another horse").is_problem(401, None);
    change(PASSWORD, "short").is_problem(422, Some("new_password"));
    change(PASSWORD, PASSWORD).is_problem(422, Some("new_password"));
    let changed = change(PASSWORD, "another horse");
    assert_eq!(changed.status, 200, "{}", changed.body);
    assert!(changed.json()["message"].is_string());
    // The token that did it goes on; another of before does not.
    let refresh = |of: &Value| server.post("/api/v1/auth/refresh", Some(token(of)), &json!({}));
    assert_eq!(refresh(&ann).status, 200);
    refresh(&other).is_problem(401, None);
    sign_in(&server, "username=ann&password=correct+horse+battery").is_problem(401, None);
    let again = sign_in(&server, "username=ann&password=another+horse");
    assert_eq!(again.json()["must_change_password"], false);
    // A revoked subject refreshes nothing.
    let subject = &claims(token(&ann))["sub"];
    let body = json!({ "subject": subject });
    let revoked = server.post("/api/v1/admin/revocations", Some(&admin()), &body);
    assert_eq!(revoked.status, 201, "{}", revoked.body);
    refresh(&ann).is_problem(401, None);
    // A token that has ended neither.
    server.advance(Duration::from_secs(1));
    let last = sign_in(&server, "username=ann&password=another+horse").json();
    assert_eq!(refresh(&last).status, 200);
    server.advance(Duration::from_secs(31 * 60));
    refresh(&last).is_problem(401, None);
}

#[test]
fn who_guesses_has_to_wait_and_others_need_not() {
    let server = with_users().manual_clock().start();
    add(&server, "ann", &["--role", "viewer", "--tenant", "a"]);
    add(&server, "bob", &["--role", "viewer", "--tenant", "a"]);
    for name in ["ann", "nobody"] {
        let guess = || sign_in(&server, &format!("username={name}&password=wrong+horse"));
        for _ in 0..6 {
            guess().is_problem(401, None);
        }
        let refused = guess();
        refused.is_problem(429, None);
        assert!(refused.json()["type"] == "/problems/too-many-attempts");
        assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    }
    // The right password does not help before its time.
    sign_in(&server, "username=ann&password=correct+horse+battery").is_problem(429, None);
    signed_in(&server, "bob");
    server.advance(Duration::from_secs(2));
    signed_in(&server, "ann");
    assert!(server.metric("tidings_auth_failures_total{reason=\"password\"}") >= 12.0);
}

#[test]
fn the_command_line_keeps_the_list() {
    let server = with_users().start();
    add(
        &server,
        "ann",
        &["--role", "viewer", "--tenant", "a", "--scope", "alarm:read"],
    );
    let (_, err) = user(
        &server,
        &["add", "ann", "--role", "viewer", "--tenant", "a"],
        PASSWORD,
        1,
    );
    assert!(err.contains("ann already"), "{err}");
    for words in [
        &["add", "x", "--role", "viewer"][..],
        &["add", "x", "--tenant", "a"],
        &["add", "", "--role", "viewer", "--tenant", "a"],
        &["add", "x", "--role", "viewer", "--tenant", "="],
        &[
            "add",
            "x",
            "--role",
            "viewer",
            "--tenant",
            "a",
            "--password",
            "y",
        ],
    ] {
        user(&server, words, "", 2);
    }
    let add_short = ["add", "x", "--role", "viewer", "--tenant", "a"];
    let (_, err) = user(&server, &add_short, "short", 2);
    assert!(err.contains("at least 8"), "{err}");
    let (_, err) = user(
        &server,
        &["add", "odd", "--role", "juggler", "--tenant", "a"],
        PASSWORD,
        0,
    );
    assert!(err.contains("juggler"), "{err}");
    let (out, _) = user(&server, &["list"], "", 0);
    let lines: Vec<Value> = out
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!((lines.len(), &lines[0]["username"]), (2, &json!("ann")));
    assert_eq!(lines[0]["scopes"], json!(["alarm:read"]));
    assert_eq!(
        lines[0]["tenants"],
        json!([{ "id": "a", "display_name": "a" }])
    );
    assert!(!out.contains("argon2"));
    let ann = signed_in(&server, "ann");
    assert_eq!(ann["scopes"], json!(["alarm:read"]));
    user(&server, &["password", "ann"], "another horse", 0);
    sign_in(&server, "username=ann&password=correct+horse+battery").is_problem(401, None);
    let again = sign_in(&server, "username=ann&password=another+horse").json();
    assert_eq!(again["must_change_password"], true);
    user(&server, &["remove", "ann"], "", 0);
    let refresh = server.post("/api/v1/auth/refresh", Some(token(&again)), &json!({}));
    refresh.is_problem(401, None);
    for words in [["remove", "ann"], ["password", "ann"]] {
        let (_, err) = user(&server, &words, "another horse", 1);
        assert!(err.contains("no user ann"), "{err}");
    }
    // Without a secret nobody could be given a token.
    let refused = tidings(["config"])
        .env("TIDINGS_AUTH_LOCAL_USERS", "true")
        .is(2);
    assert!(refused.err.contains("auth.jwt_secret"), "{}", refused.err);
}
