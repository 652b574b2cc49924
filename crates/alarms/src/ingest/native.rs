//! tidings' own alarm objects: `{"entity_id","alarm_type","severity","raised_at","source_system",...}`.

use serde_json::{Map, Value};

use super::Context;
use crate::alarm::{Identity, Occurrence};
use crate::reading::{self, Reading};
use crate::{Error, Perceived};

/// Reads one alarm.
pub fn one(value: Value, context: Context<'_>) -> Result<Occurrence, Error> {
    reading::object(value, |r| alarm(r, context))
}

/// Reads each of many: all, or what is wrong and with which.
pub fn many(values: Vec<Value>, context: Context<'_>) -> Result<Vec<Occurrence>, Error> {
    reading::each(values, |r| alarm(r, context))
}

/// Takes the members of an alarm; all that it does not know is kept.
pub(crate) fn alarm(r: &mut Reading, context: Context<'_>) -> Option<Occurrence> {
    r.ignore("tenant_id");
    let entity_id = r.text("entity_id");
    let alarm_type = r.text("alarm_type");
    let perceived = r.word::<Perceived>("severity");
    let at = r.required("raised_at", |value| {
        context.not_ahead(reading::time(value)?)
    });
    let source_system = r.text("source_system");
    let entity_external_id = r.optional_text("entity_external_id");
    let specific_problem = r.optional_text("specific_problem");
    let probable_cause = r.optional_text("probable_cause");
    let attributes = r.optional("attributes", |value| match value {
        Value::Object(map) => Ok(map),
        _ => Err(("object_type", "must be an object".into())),
    });
    let mut attributes = attributes.unwrap_or_default();
    keep(&mut attributes, r.rest());
    Some(Occurrence {
        identity: Identity {
            entity_id: entity_id?,
            alarm_type: alarm_type?,
            specific_problem,
        },
        perceived: perceived?,
        at: at?,
        source_system: source_system?,
        entity_external_id,
        probable_cause,
        attributes: text(attributes),
        ends_at: None,
        source_key: None,
        is_repeated: false,
    })
}

/// Keeps unknown members beside the attributes that the source named so itself.
fn keep(attributes: &mut Map<String, Value>, rest: Map<String, Value>) {
    for (name, value) in rest {
        if !value.is_null() {
            attributes.entry(name).or_insert(value);
        }
    }
}

/// Attributes as JSON text. What no database keeps as text, an escaped NUL, stays escaped in it.
pub(super) fn text(attributes: Map<String, Value>) -> String {
    Value::Object(attributes).to_string()
}
