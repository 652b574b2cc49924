//! `tidings config`, `policy`, `openapi` and `migrate`.

use std::path::Path;

use serde_json::{Value, json};

use crate::cli::line;
use crate::support::{SECRET, Setup, user};

#[test]
fn config_says_what_is_set_and_by_what() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.toml");
    let written = "listen = \"127.0.0.1:1111\"\ndata_dir = \"from-file\"\n[stream]\nidle = \"5m\"\nqueue_size = 7\n[[topics]]\npattern = \"vitals/**\"\nephemeral = true\n";
    std::fs::write(&file, written).unwrap();
    let config = || {
        line("config --listen 127.0.0.1:3333 --config")
            .arg(&file)
            .env("TIDINGS_LISTEN", "127.0.0.1:2222")
            .env("TIDINGS_STREAM_IDLE", "7m")
            .env("SECRET_KEY", SECRET)
            .env("SSE_MAX_CONNECTIONS", "55")
            .env("SSE_QUEUE_SIZE", "9")
            .env("TIDINGS_STREAM_NOTIFICATIONS_QUEUE_SIZE", "11")
            .env("TIDINGS_DATABASE_URL", "postgres://me:geheim@db/x")
    };
    let explained = config().arg("--explain").is(0).out;
    assert!(
        explained.starts_with("listen = 127.0.0.1:3333\n"),
        "{explained}"
    );
    let json = config().arg("--explain").arg("--json").is(0).out;
    let all: Vec<Value> = serde_json::from_str(&json).unwrap();
    let of = |key: &str| {
        all.iter()
            .find(|s| s["key"] == key)
            .unwrap_or_else(|| panic!("{key}"))
    };
    for setting in &all {
        for member in [
            "key",
            "value",
            "default",
            "source",
            "environment",
            "allowed",
            "doc",
        ] {
            assert!(setting.get(member).is_some(), "{member}: {setting}");
        }
        let key = setting["key"].as_str().unwrap();
        assert!(
            explained.contains(&format!("\n{key} = ")) || explained.starts_with(key),
            "{key}"
        );
    }
    let came = |key: &str| {
        (
            of(key)["value"].clone(),
            of(key)["source"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(
        came("listen"),
        (json!("127.0.0.1:3333"), "flag --listen".into())
    );
    assert_eq!(
        of("listen")["over"],
        json!([
            "environment TIDINGS_LISTEN",
            format!("file {}:1", file.display())
        ])
    );
    assert_eq!(
        came("data_dir"),
        (json!("from-file"), format!("file {}:2", file.display()))
    );
    assert_eq!(
        came("stream.idle"),
        (json!("7m"), "environment TIDINGS_STREAM_IDLE".into())
    );
    assert_eq!(came("stream.queue_size").0, 7);
    assert_eq!(came("stream.heartbeat"), (json!("30s"), "default".into()));
    assert_eq!(
        came("stream.alarms.max_connections"),
        (json!(55), "environment SSE_MAX_CONNECTIONS".into())
    );
    let own = "environment TIDINGS_STREAM_NOTIFICATIONS_QUEUE_SIZE";
    assert_eq!(
        came("stream.notifications.queue_size"),
        (json!(11), own.into())
    );
    assert_eq!(came("auth.jwt_secret").1, "environment SECRET_KEY");
    let toml = config().is(0).out;
    for shown in [&explained, &json, &toml] {
        assert!(
            !shown.contains(SECRET) && !shown.contains("geheim"),
            "{shown}"
        );
    }
    // What it prints can be used: all but the secrets comes back.
    let printed = folder.path().join("printed.toml");
    std::fs::write(&printed, &toml).unwrap();
    let again = line("config --config").arg(&printed).is(0).out;
    let plain = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|l| !l.starts_with('#'))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(plain(&again), plain(&toml));
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    assert_eq!(
        line("config --markdown").is(0).out,
        std::fs::read_to_string(reference).unwrap()
    );
}

/// Everything that is wrong at once, each with its key, the value, the place and what is allowed.
#[test]
fn a_wrong_setting_is_named_with_what_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.toml");
    std::fs::write(&file, "lisen = \"x\"\n[stream]\nretry = \"10ms\"\n[auth]\nquery_token = \"maybe\"\njwt_secret = \"tiny-secret\"\n").unwrap();
    for command in [
        "serve",
        "config --explain",
        "migrate",
        "token --tenant t --subject s",
    ] {
        let ran = line(command)
            .arg("--config")
            .arg(&file)
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .env("TIDINGS_LIMITS_BATCH", "many")
            .arg("--set")
            .arg("stream.heartbeat=abc")
            .is(2);
        let place = |line: u32| format!("file {}:{line}", file.display());
        for words in [
            ["unknown setting lisen", &place(1), "listen"],
            ["stream.retry = \"10ms\"", &place(3), "from 1s"],
            [
                "auth.query_token = \"maybe\"",
                &place(5),
                "off, compat, streams",
            ],
            ["auth.jwt_secret", &place(6), "32 bytes"],
            [
                "limits.batch = \"many\"",
                "TIDINGS_LIMITS_BATCH",
                "allowed: ",
            ],
            ["stream.heartbeat = \"abc\"", "--set", "30s"],
        ] {
            let found = ran
                .err
                .lines()
                .any(|line| words.iter().all(|word| line.contains(word)));
            assert!(found, "{words:?}: {}", ran.err);
        }
        assert!(!ran.err.contains("tiny-secret"), "{}", ran.err);
        assert!(!folder.path().join("data").exists());
    }
    std::fs::write(&file, "[stream\n").unwrap();
    let ran = line("config --config").arg(&file).is(2);
    assert!(
        ran.err
            .contains(&format!("{}:1: not valid TOML", file.display())),
        "{}",
        ran.err
    );
}

#[test]
fn policies_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.cedar");
    let check = || line("policy check").arg(folder.path());
    assert!(check().is(1).err.contains("no *.cedar file"));
    std::fs::write(&file, line("policy show").is(0).out).unwrap();
    assert!(check().is(0).out.contains("good"));
    for (text, at, says) in [
        ("permit (principal, action, resource);\n\npermit (", 3, ""),
        (
            "\npermit (principal, action, resource)\nwhen { resource.colour == \"red\" };",
            3,
            "colour",
        ),
        (
            "permit (principal, action == Tidings::Action::\"juggle\", resource);",
            1,
            "juggle",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let place = format!("{}:{at}: ", file.display());
        let serve =
            line("serve --listen 127.0.0.1:0 --data-dir data --policies").arg(folder.path());
        for (command, code) in [(check(), 1), (serve.within(folder.path()), 2)] {
            let ran = command.is(code);
            assert!(
                ran.err.contains(&place) && ran.err.contains(says),
                "{place}: {}",
                ran.err
            );
        }
    }
}

#[test]
fn the_openapi_document_is_that_of_the_server() {
    let server = Setup::default().start();
    let printed: Value = serde_json::from_str(&line("openapi").is(0).out).unwrap();
    assert_eq!(printed, server.get("/api/openapi.json", None).json());
    assert!(printed["openapi"].as_str().unwrap().starts_with("3.1"));
}

#[test]
fn migrate_makes_what_serve_needs() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("deep/data");
    for _ in 0..2 {
        let out = line("migrate --data-dir").arg(&data).is(0).out;
        assert!(
            out.contains("SQLite") && out.contains("up to date"),
            "{out}"
        );
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(data.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
    let server = line("serve --listen 127.0.0.1:0 --data-dir")
        .arg(&data)
        .spawn();
    assert!(server.line().starts_with("listening on http://127.0.0.1:"));
    // Also beside a server that runs.
    line("migrate --data-dir").arg(&data).is(0);
    drop(server);
    std::fs::write(data.join("tidings.db"), "this is no database").unwrap();
    line("migrate --data-dir").arg(&data).is(1);
    if let Some(url) = crate::support::postgres() {
        let out = line("migrate")
            .env("TIDINGS_DATABASE_URL", &url)
            .within(folder.path())
            .is(0)
            .out;
        assert!(out.contains("PostgreSQL"), "{out}");
        let setup = Setup {
            database_url: Some(url),
            ..Setup::default()
        };
        setup.start().publish(&user("u"), "x", &json!(1));
    }
}
