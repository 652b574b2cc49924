//! Alertmanager's webhook (version 4) and Prometheus's own `POST /api/v2/alerts`: the same alerts, once in an envelope.
//!
//! An alert's labels are its identity, so they are the alarm's: the entity, the type, and the others as specific problem.
//! A word of severity that X.733 does not have is `indeterminate` rather than a refusal: neither sender would come again
//! with another, and one rule's label must not keep the others' alarms out.

use serde_json::{Map, Value};
use tidings_core::clock::Timestamp;

use super::{Context, native};
use crate::alarm::{Identity, Occurrence};
use crate::reading::{self, Fault, MAX_TEXT_BYTES, Reading};
use crate::{Error, Perceived, Severity};

/// Labels that one alert may have.
const MAX_LABELS: usize = 256;
/// Alerts that one call may bring.
const MAX_ALERTS: usize = 10_000;

/// Reads Alertmanager's webhook.
pub fn webhook(value: Value, context: Context<'_>) -> Result<Vec<Occurrence>, Error> {
    reading::object(value, |r| {
        let alerts = r.objects("alerts", MAX_ALERTS, |r| alert(r, context, "alertmanager"));
        r.rest();
        alerts
    })
}

/// Reads Prometheus's own alerts.
pub fn alerts(values: Vec<Value>, context: Context<'_>) -> Result<Vec<Occurrence>, Error> {
    reading::each(values, |r| alert(r, context, "prometheus"))
}

fn alert(r: &mut Reading, context: Context<'_>, source: &str) -> Option<Occurrence> {
    let labels = r.required("labels", texts);
    let annotations = r.optional("annotations", texts);
    let starts_at = r.optional("startsAt", moment).flatten();
    let starts_at = match starts_at.map(|at| context.not_ahead(at)) {
        Some(Err((kind, message))) => {
            r.fault("startsAt", kind, message);
            None
        }
        Some(Ok(at)) => Some(at),
        None => Some(context.now),
    };
    let ends_at = r.optional("endsAt", moment).flatten();
    let status = r.optional_text("status");
    let rest = r.rest();
    let mut labels = labels?;
    let Some(alarm_type) = labels.remove("alertname") else {
        r.fault("labels", "missing", "alertname is required");
        return None;
    };
    let starts_at = starts_at?;
    let is_over =
        ends_at.is_some_and(|at| at <= context.now) || status.as_deref() == Some("resolved");
    let severity = labels.remove("severity");
    let entity_id = entity(&mut labels, &context.config.entity_labels);
    let perceived = if is_over {
        Perceived::Cleared
    } else {
        perceived(severity.as_deref())
    };
    let mut attributes = Map::new();
    if let Some(word) = severity {
        attributes.insert("severity".into(), word.into());
    }
    attributes.insert("labels".into(), object(&labels));
    if let Some(annotations) = annotations {
        attributes.insert("annotations".into(), object(&annotations));
    }
    for name in ["generatorURL", "fingerprint"] {
        if let Some(value) = rest.get(name).filter(|v| v.is_string()) {
            attributes.insert(name.into(), value.clone());
        }
    }
    Some(Occurrence {
        identity: Identity {
            entity_id: entity_id.unwrap_or_else(|| alarm_type.clone()),
            alarm_type,
            specific_problem: problem(&labels),
        },
        perceived,
        at: if is_over {
            ends_at.map_or(context.now, |at| at.min(context.now).max(starts_at))
        } else {
            starts_at
        },
        source_system: source.to_owned(),
        entity_external_id: None,
        probable_cause: None,
        attributes: native::text(attributes),
        ends_at: ends_at.filter(|_| !is_over),
        source_key: None,
        is_repeated: true,
    })
}

type Texts = std::collections::BTreeMap<String, String>;

fn texts(value: Value) -> Result<Texts, Fault> {
    let wrong = || ("object_type", "must be an object of strings".to_owned());
    let Value::Object(map) = value else {
        return Err(wrong());
    };
    if map.len() > MAX_LABELS {
        return Err(("too_long", format!("has at most {MAX_LABELS} members")));
    }
    map.into_iter()
        .filter(|(_, value)| value.as_str() != Some(""))
        .map(|(name, value)| match value {
            // No database keeps a NUL in a text.
            Value::String(text) if !text.contains('\0') && !name.contains('\0') => Ok((name, text)),
            _ => Err(wrong()),
        })
        .collect()
}

/// A time, or none where it is Go's zero time, which is how both senders say that they know of none.
fn moment(value: Value) -> Result<Option<Timestamp>, Fault> {
    if value
        .as_str()
        .is_some_and(|text| text.starts_with("0001-01-01T00:00:00"))
    {
        return Ok(None);
    }
    reading::time(value).map(Some)
}

/// Takes the label that names the entity.
fn entity(labels: &mut Texts, names: &[String]) -> Option<String> {
    let name = names.iter().find(|name| labels.contains_key(*name))?;
    labels.remove(name).map(|text| bounded(&text))
}

fn perceived(word: Option<&str>) -> Perceived {
    match word {
        Some(word) if word.eq_ignore_ascii_case("info") => Perceived::Raised(Severity::Warning),
        Some(word) => word
            .parse()
            .unwrap_or(Perceived::Raised(Severity::Indeterminate)),
        None => Perceived::Raised(Severity::Indeterminate),
    }
}

/// The labels that are left, in the order of their names.
fn problem(labels: &Texts) -> Option<String> {
    let pairs: Vec<_> = labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    (!pairs.is_empty()).then(|| bounded(&pairs.join(",")))
}

/// A text that an index takes: where it is longer, its beginning and a digest of the whole, so that two stay two.
fn bounded(text: &str) -> String {
    if text.len() <= MAX_TEXT_BYTES {
        return text.to_owned();
    }
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let hash: String = hash
        .as_ref()
        .iter()
        .take(16)
        .map(|b| format!("{b:02x}"))
        .collect();
    let mut end = MAX_TEXT_BYTES - 40;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}#{hash}", text.get(..end).unwrap_or_default())
}

fn object(texts: &Texts) -> Value {
    texts
        .iter()
        .map(|(name, text)| (name.clone(), Value::from(text.as_str())))
        .collect::<Map<_, _>>()
        .into()
}
