//! Settings from all sources: which one wins, and what is said of wrong ones.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde_json::Value as Json;
use tempfile::NamedTempFile;
use tidings_core::auth::AuthConfig;
use tidings_core::retention::Keep;

use super::kind::Kind;
use super::settings::{Default as Standard, SETTINGS, Setting, Standing};
use super::{Config, ConfigErrors, FlagValue, Loaded, QueryToken, Sources, load, markdown};

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn from(
    file: Option<&NamedTempFile>,
    environment: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Sources {
    let own = |text: &str| text.to_owned();
    Sources {
        file: file.map(|f| f.path().to_owned()),
        environment: environment.iter().map(|(n, v)| (own(n), own(v))).collect(),
        flags: flags
            .iter()
            .map(|(key, value)| FlagValue {
                key: own(key),
                value: own(value),
                flag: "--set",
            })
            .collect(),
        ..Sources::default()
    }
}

fn from_file(text: &str) -> Result<Loaded, ConfigErrors> {
    load(&from(Some(&file(text)), &[], &[]))
}

fn from_environment(environment: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
    load(&from(None, environment, &[]))
}

fn config(environment: &[(&str, &str)]) -> Config {
    from_environment(environment).unwrap().config
}

fn explained(loaded: &Loaded, key: &str) -> Json {
    let all = loaded.explain_json();
    let all = all.as_array().unwrap();
    all.iter().find(|s| s["key"] == key).unwrap().clone()
}

/// Three values that a setting takes, none of them its default, as text.
fn samples(setting: &Setting) -> [&'static str; 3] {
    match setting.kind {
        Kind::Address => ["127.0.0.1:1001", "127.0.0.1:1002", "[::1]:1003"],
        Kind::Path => ["one", "two", "/three"],
        Kind::Text | Kind::Tenant | Kind::CookieName | Kind::Claims => ["one", "two", "three"],
        Kind::Secret(_) => [
            "the-first-secret-of-more-than-32-bytes",
            "the-second-secret-of-more-than-32-bytes",
            "the-third-secret-of-more-than-32-bytes",
        ],
        Kind::Url(schemes) => match schemes[0] {
            "postgres://" => ["postgres://a/x", "postgres://b/x", "postgresql://c/x"],
            "nats://" => ["nats://a", "nats://b", "tls://c"],
            "mqtt://" => ["mqtt://a", "mqtt://b", "mqtts://c"],
            _ => ["http://a", "http://b:1", "https://c"],
        },
        Kind::Switch => ["true", "true", "true"],
        Kind::Choice(words) => [words[1], words[2], words[1]],
        Kind::LogFilter => ["debug", "warn", "info,tidings::http=debug"],
        Kind::Span(..) => ["3s", "4s", "7s"],
        Kind::Count(..) => ["33", "44", "77"],
        Kind::Bytes(..) => ["8KiB", "9KiB", "10KiB"],
        Kind::List => ["one", "one,two", "three"],
        Kind::Origins => ["http://a", "http://a,http://b", "http://c"],
        Kind::Names => [r#"{"a":"1"}"#, r#"{"a":"2"}"#, r#"{"a":"3"}"#],
        Kind::Lists => [r#"{"a":["1"]}"#, r#"{"a":["2"]}"#, r#"{"a":["3"]}"#],
        Kind::Topics => [
            r#"[{"pattern":"a"}]"#,
            r#"[{"pattern":"b"}]"#,
            r#"[{"pattern":"c","ephemeral":true}]"#,
        ],
    }
}

/// A sample as TOML.
fn toml_of(setting: &Setting, text: &str) -> String {
    let value = match setting.kind {
        Kind::Switch | Kind::Count(..) => text.to_owned(),
        Kind::Names | Kind::Lists | Kind::Topics => {
            let json: toml::Value = serde_json::from_str(text).unwrap();
            json.to_string()
        }
        Kind::List | Kind::Origins | Kind::Claims => {
            let items: Vec<_> = text.split(',').map(|i| format!("{i:?}")).collect();
            format!("[{}]", items.join(","))
        }
        _ => format!("{text:?}"),
    };
    format!("{} = {value}\n", setting.key)
}

/// What the setting's shown value must be, given the text that set it.
fn shown(setting: &Setting, text: &str) -> Json {
    match setting.kind {
        Kind::Secret(_) => "********".into(),
        _ => setting
            .kind
            .read(&super::input::Input::Raw(text.to_owned()))
            .unwrap()
            .to_json(),
    }
}

/// What else a setting needs to stand alone.
fn company(setting: &Setting) -> &'static [(&'static str, &'static str)] {
    match setting.key.as_str() {
        "tls.cert" => &[("TIDINGS_TLS_KEY", "key")],
        "tls.key" => &[("TIDINGS_TLS_CERT", "cert")],
        "limits.body" => &[("TIDINGS_LIMITS_EVENT", "2KiB")],
        _ => &[],
    }
}

fn settable() -> impl Iterator<Item = &'static Setting> {
    SETTINGS
        .iter()
        .filter(|s| !matches!(s.standing, Standing::Refused(_)))
}

#[test]
fn every_setting_is_weaker_in_the_file_than_in_the_environment_than_in_a_flag() {
    for setting in settable() {
        let key = setting.key.as_str();
        let [one, two, three] = samples(setting);
        let file = file(&toml_of(setting, one));
        let name = setting.environment();
        let mut environment = company(setting).to_vec();
        let loaded = load(&from(Some(&file), &environment, &[])).unwrap();
        let in_file = explained(&loaded, key);
        assert_eq!(in_file["value"], shown(setting, one), "{key}");
        assert_eq!(
            in_file["source"],
            format!("file {}:1", file.path().display()),
            "{key}"
        );
        environment.push((&name, two));
        let loaded = load(&from(Some(&file), &environment, &[])).unwrap();
        let in_environment = explained(&loaded, key);
        assert_eq!(in_environment["value"], shown(setting, two), "{key}");
        assert_eq!(
            in_environment["source"],
            format!("environment {name}"),
            "{key}"
        );
        assert_eq!(in_environment["over"][0], in_file["source"], "{key}");
        let loaded = load(&from(Some(&file), &environment, &[(key, three)])).unwrap();
        let in_flag = explained(&loaded, key);
        assert_eq!(in_flag["value"], shown(setting, three), "{key}");
        assert_eq!(in_flag["source"], "flag --set", "{key}");
        let over = [&in_environment["source"], &in_file["source"]];
        assert_eq!(
            in_flag["over"]
                .as_array()
                .unwrap()
                .iter()
                .collect::<Vec<_>>(),
            over,
            "{key}"
        );
    }
}

#[test]
fn every_setting_that_is_used_changes_the_configuration() {
    for setting in settable() {
        let environment = company(setting);
        let is_of_tls = setting.key.starts_with("tls.");
        let before = config(if is_of_tls { &[] } else { environment });
        let before = format!("{before:?}");
        let flags = [(setting.key.as_str(), samples(setting)[1])];
        let loaded = load(&from(None, environment, &flags)).unwrap();
        let is_of_devices = setting.key.starts_with("devices.");
        let has_changed = before != format!("{:?}", loaded.config);
        assert_eq!(has_changed, !is_of_devices, "{}", setting.key);
        let is_warned_of = loaded.warnings.iter().any(|w| w.contains(&setting.key));
        let waits = matches!(setting.standing, Standing::Waits(_));
        if waits {
            assert!(is_warned_of, "{}: {:?}", setting.key, loaded.warnings);
        }
    }
}

/// What no setting of the kind takes, as TOML: wrong type, then wrong value or range.
fn wrong(kind: Kind) -> Vec<&'static str> {
    match kind {
        Kind::Address => vec![
            "8080",
            "\"localhost:8080\"",
            "\"127.0.0.1\"",
            "\"127.0.0.1:99999\"",
        ],
        Kind::Path | Kind::Text => vec!["5", "\"\"", "true", "[]"],
        Kind::Secret(0) => vec!["5", "\"\"", "[\"swordfish\"]"],
        Kind::Secret(_) => vec!["5", "\"\"", "\"swordfish\""],
        Kind::Tenant => vec!["5", "\"a\\u0007b\""],
        Kind::CookieName => vec!["5", "\"a b\"", "\"a=b\""],
        Kind::Url(_) => vec!["5", "\"ftp://a\"", "\"a\"", "\"http:///x\""],
        Kind::Switch => vec!["1", "\"true\"", "[]"],
        Kind::Choice(_) => vec!["1", "\"loud\""],
        Kind::LogFilter => vec!["1", "\"loud\"", "\"info,tidings=loud\""],
        Kind::Span(..) => vec!["-1", "1.5", "true", "\"soon\"", "\"99999d\"", "2030-01-01"],
        Kind::Count(..) => vec!["-1", "1.5", "true", "\"5\"", "99999999999"],
        Kind::Bytes(..) => vec!["-1", "1.5", "true", "\"much\"", "\"9999TiB\"", "1"],
        Kind::List | Kind::Claims => vec!["5", "[5]", "[\"\"]", "{a = 1}"],
        Kind::Origins => vec!["5", "[\"*\"]", "[\"https://a/b\"]", "\"nonsense\""],
        Kind::Names => vec!["5", "\"a\"", "{a = 1}", "[\"a\"]"],
        Kind::Lists => vec!["5", "\"a\"", "{a = 1}", "[\"a\"]"],
        Kind::Topics => vec!["5", "\"a\"", "[\"a\"]", "[{}]", "[{pattern = \"a/**/b\"}]"],
    }
}

#[test]
fn every_setting_refuses_what_it_does_not_take_and_says_where_and_what_is_allowed() {
    for setting in SETTINGS.iter() {
        for value in wrong(setting.kind) {
            let file = file(&format!("# a comment\n{} = {value}\n", setting.key));
            let errors = load(&from(Some(&file), &[], &[])).unwrap_err();
            let text = errors.to_string();
            let place = format!("(file {}:2): ", file.path().display());
            assert_eq!(errors.0.len(), 1, "{text}");
            assert!(
                text.starts_with(&format!("setting {} = ", setting.key)),
                "{text}"
            );
            assert!(text.contains(&place), "{text}");
            let allowed = text.split(&place).nth(1).unwrap();
            assert!(allowed.len() > 10, "{text}");
            assert!(!text.contains("swordfish"), "{text}");
        }
        let (from, to) = match setting.kind {
            Kind::Span(from, to, _) => (format!("{}ms", from - 1), format!("{}ms", to + 1)),
            Kind::Count(from, to, _) | Kind::Bytes(from, to, _) => {
                ((from - 1).to_string(), (to + 1).to_string())
            }
            _ => continue,
        };
        let takes_zero = matches!(
            setting.kind,
            Kind::Span(_, _, true) | Kind::Count(_, _, true) | Kind::Bytes(_, _, true)
        );
        let name = setting.environment();
        for text in [from, to, "0".to_owned()] {
            let result = from_environment(&[(&name, &text)]);
            let is_zero = text == "0" || text == "0ms";
            assert_eq!(result.is_ok(), is_zero && takes_zero, "{name} = {text}");
            if let Err(errors) = result {
                let errors = errors.to_string();
                assert!(
                    errors.contains(&format!("(environment {name}): allowed: ")),
                    "{errors}"
                );
            }
        }
    }
}

#[test]
fn an_alias_sets_its_kind_of_stream_and_is_weaker_than_the_settings_own_name() {
    let loaded = from_environment(&[
        ("SSE_HEARTBEAT_INTERVAL_SECONDS", "11"),
        ("SSE_MAX_IDLE_SECONDS", "12"),
        ("SSE_MAX_CONNECTIONS", "13"),
        ("SSE_KEEPALIVE_TIMEOUT", "14"),
        ("SSE_MAX_CONNECTIONS_PER_USER", "15"),
        ("SSE_QUEUE_SIZE", "16"),
        ("TIDINGS_STREAM_ALARMS_MAX_CONNECTIONS", "99"),
    ])
    .unwrap();
    let kinds = loaded.config.kinds;
    assert_eq!(kinds.alarms.heartbeat, Duration::from_secs(11));
    assert_eq!(kinds.alarms.idle, Duration::from_secs(12));
    assert_eq!(kinds.alarms.max_connections, 99);
    assert_eq!(kinds.notifications.heartbeat, Duration::from_secs(14));
    assert_eq!(kinds.notifications.max_connections_per_user, 15);
    assert_eq!(kinds.notifications.queue_size, 16);
    assert_eq!(loaded.config.stream, config(&[]).stream);
    let won = explained(&loaded, "stream.alarms.max_connections");
    assert_eq!(
        won["source"],
        "environment TIDINGS_STREAM_ALARMS_MAX_CONNECTIONS"
    );
    assert_eq!(won["over"][0], "environment SSE_MAX_CONNECTIONS");
}

#[test]
fn every_alias_is_read_in_any_case_and_the_first_named_is_the_strongest() {
    for setting in settable() {
        for alias in setting.aliases {
            let text = samples(setting)[0];
            let lower = alias.to_ascii_lowercase();
            for name in [*alias, lower.as_str()] {
                let loaded = from_environment(&[(name, text)]).unwrap();
                let set = explained(&loaded, &setting.key);
                assert_eq!(set["source"], format!("environment {name}"));
                assert_eq!(set["value"], shown(setting, text));
            }
        }
        if let [first, second, ..] = setting.aliases {
            let [one, two, _] = samples(setting);
            let loaded = from_environment(&[(second, two), (first, one)]).unwrap();
            let set = explained(&loaded, &setting.key);
            assert_eq!(set["source"], format!("environment {first}"));
            assert_eq!(set["over"][0], format!("environment {second}"));
        }
    }
}

#[test]
fn a_wrong_alias_counts_only_where_it_wins() {
    assert!(from_environment(&[("ALLOWED_ORIGINS", r#"["*"]"#)]).is_err());
    let both = [
        ("ALLOWED_ORIGINS", r#"["*"]"#),
        ("TIDINGS_HTTP_ALLOWED_ORIGINS", "https://a.example"),
    ];
    assert_eq!(config(&both).http.allowed_origins, ["https://a.example"]);
    // A file's value is checked even where the environment overrules it.
    let file = file("stream.idle = \"soon\"\n");
    let overruled = from(Some(&file), &[("TIDINGS_STREAM_IDLE", "5s")], &[]);
    assert!(load(&overruled).is_err());
}

#[test]
fn identity_comes_from_the_names_that_existing_systems_use() {
    let config = config(&[
        ("SECRET_KEY", "0123456789abcdef0123456789abcdef"),
        ("OIDC_ISSUER_URL", "https://id.example/realms/x"),
        ("OIDC_CLIENT_ID", "app"),
        ("OIDC_COOKIE_NAME", "session"),
        ("OIDC_CLOCK_SKEW_SECONDS", "60"),
        (
            "ALLOWED_ORIGINS",
            r#"["http://localhost:3000", "https://app.example.org"]"#,
        ),
        (
            "TIDINGS_AUTH_DIRECTORY",
            r#"{"alice": ["nurse", "doctor"]}"#,
        ),
        ("TIDINGS_AUTH_QUERY_TOKEN", "compat"),
    ]);
    let auth = &config.auth.core;
    let secret = auth.jwt_secret.as_ref().unwrap().expose_secret();
    assert_eq!(secret, "0123456789abcdef0123456789abcdef");
    assert_eq!(auth.issuer.as_deref(), Some("https://id.example/realms/x"));
    assert_eq!(auth.audience, ["app"]);
    assert_eq!(auth.leeway, Duration::from_secs(60));
    let nurse = vec!["nurse".to_owned(), "doctor".to_owned()];
    assert_eq!(
        auth.directory,
        BTreeMap::from([("alice".to_owned(), nurse)])
    );
    assert_eq!(config.auth.cookie, "session");
    assert_eq!(config.auth.query_token, QueryToken::Compat);
    let origins = ["http://localhost:3000", "https://app.example.org"];
    assert_eq!(config.http.allowed_origins, origins);
}

#[test]
fn defaults_are_those_of_the_specification_and_of_the_core() {
    let config = config(&[]);
    let (auth, standard) = (&config.auth.core, AuthConfig::default());
    assert_eq!(
        format!("{:?}", auth.claims),
        format!("{:?}", standard.claims)
    );
    assert_eq!(auth.role_scopes, standard.role_scopes);
    assert_eq!(auth.leeway, standard.leeway);
    assert_eq!(
        (auth.jwks_refresh, auth.jwks_floor),
        (standard.jwks_refresh, standard.jwks_floor)
    );
    let stream = config.stream;
    assert_eq!(stream.heartbeat, Duration::from_secs(30));
    assert_eq!((stream.queue_size, stream.queue_bytes), (100, 1 << 20));
    assert_eq!(
        (stream.max_connections, stream.idle),
        (100_000, Duration::ZERO)
    );
    assert_eq!(config.kinds.alarms.idle, Duration::from_secs(300));
    assert_eq!(config.kinds.alarms.max_connections, 100);
    assert_eq!(config.kinds.alerts, stream);
    assert_eq!(config.kinds.notifications.max_connections_per_user, 5);
    assert_eq!(config.kinds.devices.heartbeat, Duration::from_secs(15));
    let limits = config.limits;
    assert_eq!(
        (limits.body, limits.body_other, limits.event),
        (16 << 20, 1 << 20, 512 << 10)
    );
    assert_eq!(
        (limits.batch, limits.headers, limits.json_depth),
        (10_000, 16 << 10, 64)
    );
    assert!(
        SETTINGS
            .iter()
            .any(|s| s.default == Standard::Of("stream.retry".into()))
    );
}

#[test]
fn a_kind_without_a_value_of_its_own_has_that_of_stream() {
    let loaded =
        from_file("[stream]\nheartbeat = \"7s\"\n[stream.devices]\nheartbeat = 9\n").unwrap();
    let kinds = loaded.config.kinds;
    assert_eq!(kinds.alarms.heartbeat, Duration::from_secs(7));
    assert_eq!(kinds.devices.heartbeat, Duration::from_secs(9));
    assert_eq!(
        explained(&loaded, "stream.alarms.heartbeat")["source"],
        "stream.heartbeat"
    );
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let file = file(
        "lisetn = 'x'\n[stream]\nheartbeat = 'abc'\nhartbeat = 5\n[colours]\nred = 1\n[[topics]]\npattern = 'a'\nmax_agee = 1\n",
    );
    let sources = from(
        Some(&file),
        &[("TIDINGS_LIMITS_BATHC", "5"), ("TIDINGS_LOG_LEVEL", "loud")],
        &[("nope", "1"), ("drain.grace", "never")],
    );
    let text = load(&sources).unwrap_err().to_string();
    for part in [
        "unknown setting lisetn (file",
        ":1); did you mean listen?",
        "setting stream.heartbeat = \"abc\"",
        "unknown setting stream.hartbeat",
        ":4); did you mean stream.heartbeat?",
        "unknown setting colours",
        "entry 1: unknown member max_agee; did you mean max_age?",
        "TIDINGS_LIMITS_BATHC); did you mean TIDINGS_LIMITS_BATCH?",
        "setting log.level = \"loud\" (environment TIDINGS_LOG_LEVEL)",
        "unknown setting nope (flag --set); `tidings config --explain`",
        "setting drain.grace = \"never\" (flag --set)",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert_eq!(text.lines().count(), 9, "{text}");
}

#[test]
fn a_file_that_is_missing_or_no_toml_is_named_with_its_line() {
    let mut missing = Sources::default();
    missing
        .environment
        .insert("TIDINGS_CONFIG".into(), "/nowhere/tidings.toml".into());
    let text = load(&missing).unwrap_err().to_string();
    assert!(
        text.contains("cannot read the configuration file /nowhere/tidings.toml"),
        "{text}"
    );
    let text = from_file("[auth]\njwt_secret = \"swordfish\n")
        .unwrap_err()
        .to_string();
    assert!(text.contains(":2: not valid TOML"), "{text}");
    assert!(!text.contains("swordfish"), "{text}");
    let text = from_file("listen = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"\n")
        .unwrap_err()
        .to_string();
    assert!(text.contains(":2: not valid TOML"), "{text}");
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    for (environment, says) in [
        (vec![("TIDINGS_TLS_CERT", "c")], "tls.key is not"),
        (vec![("TIDINGS_TLS_KEY", "k")], "tls.cert is not"),
        (
            vec![("TIDINGS_LIMITS_BODY", "64KiB")],
            "limits.event is larger",
        ),
        (
            vec![
                ("TIDINGS_AUTH_JWKS_FILE", "f"),
                ("TIDINGS_AUTH_JWKS_URL", "https://x/y"),
            ],
            "one place",
        ),
        (
            vec![
                ("TIDINGS_LISTEN", "127.0.0.1:9"),
                ("TIDINGS_METRICS_LISTEN", "127.0.0.1:9"),
            ],
            "same address",
        ),
        (
            vec![("TIDINGS_NATS_URL", "nats://x")],
            "not part of this version",
        ),
    ] {
        let text = from_environment(&environment).unwrap_err().to_string();
        assert!(text.contains(says), "{text}");
    }
}

#[test]
fn what_has_no_effect_is_warned_about_and_what_others_put_there_is_not() {
    let warnings = |environment: &[(&str, &str)]| {
        let mut all = environment.to_vec();
        all.push(("SECRET_KEY", "0123456789abcdef0123456789abcdef"));
        from_environment(&all).unwrap().warnings
    };
    for (name, value) in [
        ("MQTT_URL", "mqtt://broker:1883"),
        ("MQTT_CLIENT_ID", "x"),
        ("ELASTICSEARCH_URL", "http://search:9200"),
        ("ELASTICSEARCH_SHARDS", "3"),
        ("OIDC_CLIENT_SECRET", "swordfish"),
        ("INTERNAL_API_URL", "http://api"),
        ("SSE_QUEUE_SIZE", "5"),
        ("TIDINGS_DEVICES_MQTT_URL", "mqtt://broker"),
        ("TIDINGS_COLOUR_OF_THE_SKY", "blue"),
    ] {
        let warnings = warnings(&[(name, value)]);
        assert_eq!(warnings.len(), 1, "{name}: {warnings:?}");
        assert!(
            warnings[0].contains(name) && warnings[0].contains("has no effect"),
            "{warnings:?}"
        );
        assert!(!warnings[0].contains("swordfish"), "{warnings:?}");
    }
    let quiet = [
        ("TIDINGS_PORT", "tcp://10.0.0.1:8080"),
        ("TIDINGS_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("TIDINGS_SERVICE_HOST", "10.0.0.1"),
        ("TIDINGS_TOKEN", "x"),
        ("TIDINGS_TEST_CLOCK", "manual"),
        ("TIDINGS_URL", "http://x"),
        ("TIDINGS_LISTEN", ""),
        ("PATH", "/bin"),
    ];
    assert_eq!(warnings(&quiet), Vec::<String>::new());
    let short = from_environment(&[("SECRET_KEY", "swordfish")]).unwrap_err();
    let short = short.to_string();
    assert!(short.contains("at least 32 bytes") && !short.contains("swordfish"));
    assert!(from_environment(&[]).unwrap().warnings[0].contains("no token can be accepted"));
}

#[test]
fn no_secret_is_shown_anywhere() {
    let loaded = from_environment(&[
        ("SECRET_KEY", "swordfish-swordfish-swordfish-swordfish"),
        (
            "TIDINGS_DATABASE_URL",
            "postgres://me:swordfish@db/x?password=swordfish",
        ),
        ("MQTT_URL", "mqtts://me:swordfish@broker"),
        ("MQTT_PASSWORD", "swordfish"),
        ("ELASTICSEARCH_PASSWORD", "swordfish"),
        (
            "TIDINGS_OTLP_ENDPOINT",
            "http://me:swordfish@collector:4318",
        ),
    ])
    .unwrap();
    assert!(
        loaded
            .config
            .database_url
            .as_ref()
            .unwrap()
            .expose_secret()
            .contains("swordfish")
    );
    let shown = [
        loaded.explain(),
        loaded.explain_json().to_string(),
        loaded.to_toml(),
        loaded.warnings.join("\n"),
        format!("{:?}", loaded.settled),
        format!("{:?}", loaded.config.auth),
    ];
    for text in shown {
        assert!(!text.contains("swordfish"), "{text}");
    }
    let wrong = from_environment(&[("TIDINGS_DATABASE_URL", "mysql://me:swordfish@db")]);
    assert!(!wrong.unwrap_err().to_string().contains("swordfish"));
}

#[test]
fn the_effective_toml_means_the_same_again() {
    let first = load(&from(
        Some(&file(
            "[[topics]]\npattern = \"vitals/**\"\nephemeral = true\n",
        )),
        &[
            ("TIDINGS_AUTH_DIRECTORY", r#"{"a b": ["x\"y"]}"#),
            ("TIDINGS_STREAM_IDLE", "90s"),
            ("TIDINGS_LISTEN", "[::1]:9"),
        ],
        &[],
    ))
    .unwrap();
    let again = from_file(&first.to_toml()).unwrap();
    assert_eq!(format!("{:?}", again.config), format!("{:?}", first.config));
    assert_eq!(again.config.retention.topics[0].keep, Keep::Ephemeral);
}

#[test]
fn explain_says_everything_of_every_setting() {
    let loaded = from_environment(&[]).unwrap();
    let text = loaded.explain();
    let all = loaded.explain_json();
    assert_eq!(all.as_array().unwrap().len(), SETTINGS.len());
    for (setting, json) in SETTINGS.iter().zip(all.as_array().unwrap()) {
        assert!(text.contains(&format!("{} = ", setting.key)) && text.contains(&setting.doc));
        assert!(text.contains(&setting.environment()));
        for member in [
            "key",
            "value",
            "default",
            "source",
            "environment",
            "doc",
            "allowed",
        ] {
            assert!(json.get(member).is_some(), "{}: {member}", setting.key);
        }
    }
}

#[test]
fn presets_are_the_weakest_and_an_empty_flag_goes_back_to_the_default() {
    let mut sources = from(None, &[], &[]);
    sources.presets = Some(("serve --demo", vec![("auth.query_token", "compat".into())]));
    let loaded = load(&sources).unwrap();
    assert_eq!(loaded.config.auth.query_token, QueryToken::Compat);
    assert_eq!(
        explained(&loaded, "auth.query_token")["source"],
        "serve --demo"
    );
    sources
        .environment
        .insert("TIDINGS_AUTH_QUERY_TOKEN".into(), "off".into());
    assert_eq!(
        load(&sources).unwrap().config.auth.query_token,
        QueryToken::Off
    );
    let back = from(
        None,
        &[("TIDINGS_STREAM_IDLE", "5s")],
        &[("stream.idle", "")],
    );
    assert_eq!(load(&back).unwrap().config.stream.idle, Duration::ZERO);
}

#[test]
fn the_reference_in_the_documents_is_that_of_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == markdown(),
        "docs/configuration.md is out of date: tidings config --markdown > docs/configuration.md"
    );
}
