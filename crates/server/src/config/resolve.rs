//! From layers to one value for each setting, and what to say about it.

use std::collections::BTreeMap;

use super::error::{ConfigError, ConfigErrors, Source};
use super::input::Input;
use super::settings::{self, Default, SETTINGS, Setting, Standing};
use super::sources::{Given, Layers, Sources, is_unset};
use super::value::Value;

/// A setting's value, and where it came from.
#[derive(Debug, Clone)]
pub(super) struct Resolved {
    pub(super) setting: &'static Setting,
    /// None where nothing sets it and it has no default.
    pub(super) value: Option<Value>,
    pub(super) source: Source,
    /// Weaker sources that set it too, the strongest first.
    pub(super) over: Vec<Source>,
}

/// The value of every setting, in the table's order, and the warnings.
#[derive(Debug, Clone)]
pub(super) struct Settled {
    pub(super) all: Vec<Resolved>,
    pub(super) warnings: Vec<String>,
}

/// Reads the sources and settles every setting, or says everything that is wrong.
pub(super) fn settle(sources: &Sources) -> Result<Settled, ConfigErrors> {
    let layers = Layers::read(sources);
    let (mut errors, mut warnings) = (layers.errors, layers.warnings);
    let mut all: Vec<Resolved> = Vec::with_capacity(SETTINGS.len());
    let mut at = BTreeMap::new();
    for setting in SETTINGS.iter() {
        let given = layers
            .given
            .get(&setting.key)
            .map_or(&[][..], Vec::as_slice);
        let resolved = match resolve(setting, given, &mut errors) {
            Some(resolved) => resolved,
            None => by_default(setting, &all, &at),
        };
        at.insert(setting.key.as_str(), all.len());
        all.push(resolved);
    }
    for resolved in all.iter().filter(|r| is_set(r)) {
        let (key, place) = (&resolved.setting.key, &resolved.source);
        match resolved.setting.standing {
            Standing::Used => {}
            Standing::Waits(why) => {
                warnings.push(format!("setting {key} ({place}) has no effect: {why}"));
            }
            // A wrong value has been said already.
            Standing::Refused(_) if resolved.value.is_none() => {}
            Standing::Refused(reason) => errors.push(ConfigError::Refused {
                key: key.clone(),
                place: place.clone(),
                reason: reason.to_owned(),
            }),
        }
    }
    if errors.is_empty() {
        Ok(Settled { all, warnings })
    } else {
        Err(ConfigErrors(errors))
    }
}

fn is_set(resolved: &Resolved) -> bool {
    !matches!(resolved.source, Source::Default | Source::Of(_))
}

/// The strongest of the given values; all are checked, but for aliases that another overrules.
fn resolve(
    setting: &'static Setting,
    given: &[Given],
    errors: &mut Vec<ConfigError>,
) -> Option<Resolved> {
    let (winner, weaker) = given.split_last()?;
    for given in weaker.iter().filter(|g| !g.is_alias) {
        read(setting, given, errors);
    }
    if is_unset(&winner.input) {
        return None;
    }
    Some(Resolved {
        setting,
        value: read(setting, winner, errors),
        source: winner.source.clone(),
        over: weaker.iter().rev().map(|g| g.source.clone()).collect(),
    })
}

fn read(setting: &Setting, given: &Given, errors: &mut Vec<ConfigError>) -> Option<Value> {
    match setting.kind.read(&given.input) {
        Ok(value) => Some(value),
        Err(reason) => {
            errors.push(ConfigError::Value {
                key: setting.key.clone(),
                value: setting.kind.show(&given.input),
                place: given.source.clone(),
                reason,
            });
            None
        }
    }
}

/// What a setting has where nothing sets it. The settings that others stand in for come first in the table.
fn by_default(setting: &'static Setting, all: &[Resolved], at: &BTreeMap<&str, usize>) -> Resolved {
    let (value, source) = match &setting.default {
        Default::None => (None, Source::Default),
        Default::Text(text) => {
            let input = Input::Raw((*text).to_owned());
            (setting.kind.read(&input).ok(), Source::Default)
        }
        Default::Of(key) => {
            let other = at.get(key.as_str()).and_then(|&at| all.get(at));
            let value = other.and_then(|o| o.value.clone());
            (value, Source::Of(key.clone()))
        }
    };
    Resolved {
        setting,
        value,
        source,
        over: Vec::new(),
    }
}

/// The default of a setting as it is shown: `-` for none.
pub(super) fn show_default(setting: &Setting) -> String {
    match &setting.default {
        Default::None => "-".to_owned(),
        Default::Of(key) => format!("that of {key}"),
        Default::Text(text) => match setting.kind.read(&Input::Raw((*text).to_owned())) {
            Ok(value) => value.show(),
            Err(_) => (*text).to_owned(),
        },
    }
}

/// The setting of a key, where the caller knows that there is one.
pub(super) fn get<'a>(all: &'a [Resolved], key: &str) -> Option<&'a Resolved> {
    debug_assert!(settings::find(key).is_some(), "no setting {key}");
    all.iter().find(|r| r.setting.key == key)
}
