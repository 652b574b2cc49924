//! What holds for every setting of the table.

use serde_json::Value as Json;

use super::{config, explained, file, from, from_environment};
use crate::config::input::Input;
use crate::config::kind::Kind;
use crate::config::load;
use crate::config::settings::{Default, SETTINGS, Setting, Standing};

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
        Kind::Switch if setting.default == Default::Text("true") => ["false"; 3],
        Kind::Switch => ["true"; 3],
        Kind::Choice(words) => [words[1], words[words.len() - 1], words[1]],
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
            .read(&Input::Raw(text.to_owned()))
            .unwrap()
            .to_json(),
    }
}

/// What else a setting needs to stand alone.
fn company(setting: &Setting) -> &'static [(&'static str, &'static str)] {
    match setting.key.as_str() {
        "tls.cert" => &[("TIDINGS_TLS_KEY", "key")],
        "tls.key" => &[("TIDINGS_TLS_CERT", "cert")],
        "auth.local_users" => &[(
            "TIDINGS_AUTH_JWT_SECRET",
            "a secret of more than thirty-two bytes",
        )],
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
