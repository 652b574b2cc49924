//! What is shown of a configuration, and what is not.

use secrecy::ExposeSecret as _;
use tidings_core::retention::Keep;

use super::{file, from, from_environment, from_file};
use crate::config::settings::SETTINGS;
use crate::config::{load, markdown};

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
fn the_reference_in_the_documents_is_that_of_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == markdown(),
        "docs/configuration.md is out of date: tidings config --markdown > docs/configuration.md"
    );
}
