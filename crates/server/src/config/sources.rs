//! The layers that settings come from: presets, a TOML file, the environment, flags.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Source};
use super::input::Input;
use super::settings::{self, FOREIGN_PREFIXES, SETTINGS};
use super::suggest::nearest;

/// Names under `TIDINGS_` that are no settings: the file itself, and what client commands read.
const RESERVED: [&str; 4] = [CONFIG, URL, TOKEN, CA];
/// What tests tell a server that they start.
const TESTS: &str = "TIDINGS_TEST_";
/// Names the configuration file where `--config` does not.
const CONFIG: &str = "TIDINGS_CONFIG";
/// The server that client commands talk to where `--url` is not given.
pub(crate) const URL: &str = "TIDINGS_URL";
/// The token of client commands where `--token` is not given.
pub(crate) const TOKEN: &str = "TIDINGS_TOKEN";
/// The certificates that client commands trust where `--ca` is not given.
pub(crate) const CA: &str = "TIDINGS_CA";

/// What settings are read from. It holds secrets as they were written: it has no `Debug`.
#[derive(Clone, Default)]
pub(crate) struct Sources {
    /// What a command sets for itself, weaker than all else: (command, [(key, value)]).
    pub(crate) presets: Option<(&'static str, Vec<(&'static str, String)>)>,
    /// The TOML file.
    pub(crate) file: Option<PathBuf>,
    /// The environment.
    pub(crate) environment: BTreeMap<String, String>,
    /// What flags set.
    pub(crate) flags: Vec<FlagValue>,
}

/// A setting on the command line.
#[derive(Clone)]
pub(crate) struct FlagValue {
    /// The setting's key.
    pub(crate) key: String,
    /// Its text.
    pub(crate) value: String,
    /// The flag that set it, as in `--listen`.
    pub(crate) flag: &'static str,
}

impl Sources {
    /// The environment of this process. A name or value that is no Unicode is left out.
    pub(crate) fn from_environment() -> Self {
        let texts = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self {
            environment: texts.collect(),
            ..Self::default()
        }
    }

    /// The file to read: the one that was named, else that of `TIDINGS_CONFIG`.
    pub(super) fn config_file(&self) -> Option<PathBuf> {
        let named = self.environment.get(CONFIG).filter(|p| !p.is_empty());
        self.file.clone().or_else(|| named.map(PathBuf::from))
    }
}

/// One value of one source.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) source: Source,
    pub(super) input: Input,
    /// Whether the name was an alias: then it is checked only where it wins.
    pub(super) is_alias: bool,
}

/// What the sources say: for each key its values, the strongest last.
#[derive(Debug, Default)]
pub(super) struct Layers {
    pub(super) given: BTreeMap<String, Vec<Given>>,
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<String>,
}

impl Layers {
    /// Reads all sources, the weakest first.
    pub(super) fn read(sources: &Sources) -> Self {
        let mut layers = Self::default();
        if let Some((command, values)) = &sources.presets {
            for (key, value) in values {
                layers.give(key, Source::Preset(command), Input::Raw(value.clone()));
            }
        }
        if let Some(path) = sources.config_file() {
            layers.read_file(&path);
        }
        layers.read_environment(&sources.environment);
        for flag in &sources.flags {
            let source = Source::Flag(flag.flag.to_owned());
            layers.give(&flag.key, source, Input::Raw(flag.value.clone()));
        }
        layers
    }

    fn give(&mut self, key: &str, source: Source, input: Input) {
        if settings::find(key).is_none() {
            self.errors.push(unknown(key, source));
            return;
        }
        self.push(key, source, input, false);
    }

    fn push(&mut self, key: &str, source: Source, input: Input, is_alias: bool) {
        let given = Given {
            source,
            input,
            is_alias,
        };
        self.given.entry(key.to_owned()).or_default().push(given);
    }

    fn read_file(&mut self, path: &Path) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) => {
                let (path, reason) = (path.to_owned(), e.to_string());
                self.errors.push(ConfigError::File { path, reason });
                return;
            }
        };
        match DeTable::parse(&text) {
            Ok(table) => {
                let file = File { path, text: &text };
                self.read_table(&file, "", table.get_ref());
            }
            // Only the message: the parser's own report shows the line, and a secret may stand there.
            Err(e) => self.errors.push(ConfigError::Toml {
                path: path.to_owned(),
                line: e.span().map_or(1, |span| line_of(&text, span.start)),
                reason: e.message().trim().to_owned(),
            }),
        }
    }

    fn read_table(&mut self, file: &File<'_>, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = match prefix {
                "" => name.get_ref().to_string(),
                prefix => format!("{prefix}.{}", name.get_ref()),
            };
            let source = file.place(name.span().start);
            match (settings::find(&key), value.get_ref()) {
                (Some(_), value) => self.give(&key, source, read_toml(value)),
                (None, DeValue::Table(table)) if is_section(&key) => {
                    self.read_table(file, &key, table);
                }
                (None, _) => self.errors.push(unknown(&key, source)),
            }
        }
    }

    /// Aliases first, so that a setting's own name is stronger. An empty variable counts as not set.
    fn read_environment(&mut self, environment: &BTreeMap<String, String>) {
        for setting in SETTINGS.iter() {
            for alias in setting.aliases.iter().rev() {
                if let Some((name, value)) = get_any_case(environment, alias) {
                    let source = Source::Environment(name.to_owned());
                    self.push(&setting.key, source, Input::Raw(value.to_owned()), true);
                }
            }
            let name = setting.environment();
            if let Some(value) = environment.get(&name).filter(|v| !v.trim().is_empty()) {
                let input = Input::Raw(value.clone());
                self.push(&setting.key, Source::Environment(name), input, false);
            }
        }
        for name in environment.keys() {
            self.look_for_mistakes(name);
        }
    }

    /// A name that looks like ours and sets nothing: refused where it is near a setting's, else warned about.
    fn look_for_mistakes(&mut self, name: &str) {
        let upper = name.to_ascii_uppercase();
        let is_alias = |s: &settings::Setting| s.aliases.contains(&upper.as_str());
        if SETTINGS
            .iter()
            .any(|s| s.environment() == name || is_alias(s))
            || RESERVED.contains(&name)
            || name.starts_with(TESTS)
            || is_service_link(name)
        {
            return;
        }
        if let Some((_, why)) = FOREIGN_PREFIXES.iter().find(|(p, _)| upper.starts_with(p)) {
            let warning = format!("environment {name} has no effect: {why}");
            self.warnings.push(warning);
        } else if name.starts_with("TIDINGS_") {
            let names: Vec<_> = SETTINGS
                .iter()
                .map(settings::Setting::environment)
                .collect();
            match nearest(name, names.iter().map(String::as_str)) {
                Some(near) if strsim::damerau_levenshtein(name, near) <= 2 => {
                    self.errors.push(ConfigError::Unknown {
                        key: name.to_owned(),
                        place: Source::Environment(name.to_owned()),
                        hint: format!("; did you mean {near}?"),
                    });
                }
                _ => self.warnings.push(format!(
                    "environment {name} has no effect: there is no such setting"
                )),
            }
        }
    }
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn place(&self, at: usize) -> Source {
        Source::File(self.path.to_owned(), line_of(self.text, at))
    }
}

fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or_default();
    before.iter().filter(|&&b| b == b'\n').count() + 1
}

fn is_section(key: &str) -> bool {
    let prefix = format!("{key}.");
    SETTINGS.iter().any(|s| s.key.starts_with(&prefix))
}

/// What Kubernetes puts into every container of a namespace with a service named `tidings`.
fn is_service_link(name: &str) -> bool {
    name == "TIDINGS_PORT"
        || name.starts_with("TIDINGS_PORT_")
        || name.starts_with("TIDINGS_SERVICE_")
}

/// An alias in capitals, else in any case: existing deployments read their settings without regard to it.
fn get_any_case<'a>(
    environment: &'a BTreeMap<String, String>,
    alias: &str,
) -> Option<(&'a str, &'a str)> {
    let exact = environment.get_key_value(alias);
    let found = exact.or_else(|| {
        let mut entries = environment.iter();
        entries.find(|(name, _)| name.eq_ignore_ascii_case(alias))
    });
    found
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(_, value)| !value.trim().is_empty())
}

fn unknown(key: &str, place: Source) -> ConfigError {
    // A long key that ends like a setting was written under the wrong table.
    let moved = SETTINGS
        .iter()
        .find(|s| s.key.rsplit('.').next() == key.rsplit('.').next() && s.key != key);
    let near = nearest(key, SETTINGS.iter().map(|s| s.key.as_str()));
    let near = near.or_else(|| moved.map(|s| s.key.as_str()));
    ConfigError::Unknown {
        key: key.to_owned(),
        place,
        hint: near.map_or_else(
            || "; `tidings config --explain` lists all settings".to_owned(),
            |near| format!("; did you mean {near}?"),
        ),
    }
}

fn read_toml(value: &DeValue<'_>) -> Input {
    match value {
        DeValue::String(text) => Input::Text(text.to_string()),
        DeValue::Boolean(is_on) => Input::Switch(*is_on),
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Input::Number(number),
            Err(_) => Input::Other(number.to_string()),
        },
        DeValue::Float(number) => Input::Other(number.to_string()),
        DeValue::Datetime(at) => Input::Other(at.to_string()),
        DeValue::Array(items) => {
            Input::Array(items.iter().map(|i| read_toml(i.get_ref())).collect())
        }
        DeValue::Table(members) => Input::Table(
            members
                .iter()
                .map(|(name, value): (&Spanned<_>, _)| {
                    (name.get_ref().to_string(), read_toml(value.get_ref()))
                })
                .collect(),
        ),
    }
}

/// Whether a text means "as if nothing had set it", as `--set key=` does.
pub(super) fn is_unset(input: &Input) -> bool {
    matches!(input, Input::Raw(text) if text.trim().is_empty())
}
