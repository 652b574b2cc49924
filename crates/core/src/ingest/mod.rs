//! What comes in, accepted or refused: text to [`NewEvent`]s, with errors that name the field. Pure: no I/O, no clock.
//!
//! - `native`: tidings' own event objects, single, array, NDJSON
//! - `cloudevents`: CloudEvents 1.0, structured, batched, binary

pub mod cloudevents;
mod members;
pub mod native;

use crate::event::{InvalidJson, Json, NewEvent};

/// What one request may bring.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest event, in bytes of its JSON text.
    pub event: usize,
    /// The most events.
    pub batch: usize,
    /// How many arrays and objects may stand inside one another in an event's data.
    pub json_depth: usize,
}

/// What kind of fault it is: decides the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Cannot be read: not JSON, not UTF-8, too deep.
    Malformed,
    /// A header is missing or wrong.
    Header,
    /// Can be read, but a member is missing, unknown, of the wrong type or value.
    Invalid,
    /// Over a limit.
    TooLarge,
}

/// Why nothing was taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// What kind of fault.
    pub class: Class,
    /// The first fault, for a person.
    pub detail: String,
    /// The member at fault, as a path inside the item, or the header.
    pub field: Option<String>,
    /// The item's place in a batch, from 0.
    pub index: Option<usize>,
    /// Every fault of the item: member and what is wrong with it.
    pub errors: Vec<(String, String)>,
}

impl Invalid {
    fn new(class: Class, detail: impl Into<String>) -> Self {
        Self {
            class,
            detail: detail.into(),
            field: None,
            index: None,
            errors: Vec::new(),
        }
    }

    fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    fn of_item(mut self, index: Option<usize>) -> Self {
        self.index = self.index.or(index);
        self
    }

    /// All faults of an item. The first stands for all.
    fn of_members(errors: Vec<(String, String)>) -> Self {
        let (field, detail) = errors.first().cloned().unwrap_or_default();
        Self {
            class: Class::Invalid,
            detail: format!("{field}: {detail}"),
            field: Some(field),
            index: None,
            errors,
        }
    }
}

fn too_deep(e: &InvalidJson) -> Invalid {
    Invalid::new(Class::Malformed, e.to_string())
}

/// Reads UTF-8 text whose nesting is within the limit; two levels more than data, for the event and the batch around it.
fn text<'a>(body: &'a [u8], limits: &Limits) -> Result<&'a str, Invalid> {
    let text = std::str::from_utf8(body).map_err(|e| {
        Invalid::new(
            Class::Malformed,
            format!("not UTF-8 at byte {}", e.valid_up_to()),
        )
    })?;
    crate::event::check_depth(body, limits.json_depth + 2)
        .map_err(|_| too_deep(&InvalidJson::TooDeep(limits.json_depth)))?;
    Ok(text)
}

fn check_batch(count: usize, limits: &Limits) -> Result<(), Invalid> {
    match count {
        0 => Err(Invalid::new(Class::Invalid, "at least one event")),
        n if n > limits.batch => Err(Invalid::new(
            Class::TooLarge,
            format!("{n} events; at most {} in one request", limits.batch),
        )),
        _ => Ok(()),
    }
}

fn check_event(bytes: usize, limits: &Limits) -> Result<(), Invalid> {
    if bytes > limits.event {
        return Err(Invalid::new(
            Class::TooLarge,
            format!("an event is at most {} bytes", limits.event),
        ));
    }
    Ok(())
}

fn data(raw: &serde_json::value::RawValue, limits: &Limits) -> Result<Json, Invalid> {
    Json::new(raw, limits.json_depth).map_err(|e| too_deep(&e).at("data"))
}

/// Reads each item of a batch; the first that is refused refuses all.
fn each<T>(
    items: Vec<T>,
    limits: &Limits,
    read: impl Fn(T) -> Result<NewEvent, Invalid>,
) -> Result<Vec<NewEvent>, Invalid> {
    check_batch(items.len(), limits)?;
    items
        .into_iter()
        .enumerate()
        .map(|(index, item)| read(item).map_err(|e| e.of_item(Some(index))))
        .collect()
}

#[cfg(test)]
mod tests;
