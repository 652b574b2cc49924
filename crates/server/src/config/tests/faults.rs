//! What is said of settings that are wrong, missing, or without effect.

use super::{file, from, from_environment, from_file};
use crate::config::{Sources, load};

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
            vec![("TIDINGS_AUTH_LOCAL_USERS", "true")],
            "auth.jwt_secret is not set",
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
