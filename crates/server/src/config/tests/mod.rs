//! Settings from all sources: which one wins, and what is said of wrong ones.

mod every_setting;
mod faults;
mod shown;
mod sources;

use std::io::Write as _;

use serde_json::Value as Json;
use tempfile::NamedTempFile;

use super::{Config, ConfigErrors, FlagValue, Loaded, Sources, load};

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
