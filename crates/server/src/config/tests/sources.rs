//! Defaults, aliases, presets: what a configuration comes from.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tidings_core::auth::AuthConfig;

use super::{config, explained, file, from, from_environment, from_file};
use crate::config::settings::{Default as Standard, SETTINGS};
use crate::config::{QueryToken, load};

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
