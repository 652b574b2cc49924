//! Reads the members of a JSON object one by one, and gathers all that is wrong, each with its path.
//!
//! [`object`] and [`each`] take a function from a [`Reading`] to what it makes. It takes every member first, then builds
//! with `?` on those that must be there:
//!
//! ```ignore
//! reading::object(body, |r| {
//!     r.ignore("tenant_id");
//!     let (title, severity) = (r.text("title"), r.word::<Severity>("severity"));
//!     let since = r.optional_time("since");
//!     Some(NewThing { title: title?, severity: severity?, since })
//! })
//! ```
//!
//! `null` counts as absent. A member that nobody took is refused by name, unless [`Reading::rest`] took them all.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde_json::{Map, Value};
use tidings_core::clock::Timestamp;

use crate::error::{Error, Invalid, Step};

/// The longest text of a member, in bytes, where the reader does not say otherwise.
pub const MAX_TEXT_BYTES: usize = 1_024;
/// Faults that one answer names: a large batch can be wrong in every item.
const MAX_FAULTS: usize = 100;

/// Why one value is not taken: a short code, and what is allowed.
pub type Fault = (&'static str, String);

/// Reads one object.
pub fn object<T>(value: Value, read: impl FnOnce(&mut Reading) -> Option<T>) -> Result<T, Error> {
    let mut faults = Vec::new();
    let made = one(value, &mut Vec::new(), &mut faults, read);
    made.ok_or(Error::Invalid(faults))
}

/// Reads each object of a batch: all, or what is wrong with the first hundred that are.
pub fn each<T>(
    items: Vec<Value>,
    read: impl Fn(&mut Reading) -> Option<T>,
) -> Result<Vec<T>, Error> {
    let mut faults = Vec::new();
    let mut all = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        all.extend(one(item, &mut vec![Step::Index(index)], &mut faults, &read));
        if faults.len() >= MAX_FAULTS {
            break;
        }
    }
    faults.truncate(MAX_FAULTS);
    if faults.is_empty() {
        Ok(all)
    } else {
        Err(Error::Invalid(faults))
    }
}

/// Reads one object at a place; none where anything of it is wrong.
fn one<T>(
    value: Value,
    at: &mut Vec<Step>,
    faults: &mut Vec<Invalid>,
    read: impl FnOnce(&mut Reading) -> Option<T>,
) -> Option<T> {
    let Value::Object(members) = value else {
        faults.push(Invalid {
            at: at.clone(),
            message: "must be an object".into(),
            kind: "object_type",
        });
        return None;
    };
    let before = faults.len();
    let mut reading = Reading {
        members,
        at: std::mem::take(at),
        faults: std::mem::take(faults),
    };
    let made = read(&mut reading);
    for name in std::mem::take(&mut reading.members).keys() {
        reading.fault(name, "extra_forbidden", "is not a member of this");
    }
    if made.is_none() && reading.faults.len() == before {
        reading.faults.push(Invalid {
            at: reading.at.clone(),
            message: "is not complete".into(),
            kind: "missing",
        });
    }
    (*at, *faults) = (reading.at, reading.faults);
    made.filter(|_| faults.len() == before)
}

/// An object whose members are being read.
#[derive(Debug)]
pub struct Reading {
    members: Map<String, Value>,
    at: Vec<Step>,
    faults: Vec<Invalid>,
}

impl Reading {
    /// Notes that a member is wrong.
    pub fn fault(&mut self, name: &str, kind: &'static str, message: impl Into<String>) {
        let mut at = self.at.clone();
        at.push(Step::Member(name.to_owned()));
        self.faults.push(Invalid {
            at,
            message: message.into(),
            kind,
        });
    }

    /// Accepts a member that existing clients send though the server knows better.
    pub fn ignore(&mut self, name: &str) {
        self.members.remove(name);
    }

    /// Takes a member as it stands.
    pub fn raw(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name).filter(|value| !value.is_null())
    }

    /// Takes all members that nobody has taken yet.
    pub fn rest(&mut self) -> Map<String, Value> {
        std::mem::take(&mut self.members)
    }

    /// Takes a member and reads it by a function of one's own.
    pub fn optional<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Value) -> Result<T, Fault>,
    ) -> Option<T> {
        match read(self.raw(name)?) {
            Ok(value) => Some(value),
            Err((kind, message)) => {
                self.fault(name, kind, message);
                None
            }
        }
    }

    /// The same for a member that must be there.
    pub fn required<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Value) -> Result<T, Fault>,
    ) -> Option<T> {
        if self.members.get(name).is_none_or(Value::is_null) {
            self.members.remove(name);
            self.fault(name, "missing", "is required");
            return None;
        }
        self.optional(name, read)
    }

    /// A text of 1 to [`MAX_TEXT_BYTES`] bytes that must be there.
    pub fn text(&mut self, name: &str) -> Option<String> {
        self.required(name, text_up_to(MAX_TEXT_BYTES))
    }

    /// The same where it may be absent.
    pub fn optional_text(&mut self, name: &str) -> Option<String> {
        self.optional(name, text_up_to(MAX_TEXT_BYTES))
    }

    /// A word that must be there, as [`FromStr`] reads it.
    pub fn word<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        self.required(name, word)
    }

    /// The same where it may be absent.
    pub fn optional_word<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        self.optional(name, word)
    }

    /// A moment that must be there, RFC 3339 with an offset.
    pub fn time(&mut self, name: &str) -> Option<Timestamp> {
        self.required(name, time)
    }

    /// The same where it may be absent.
    pub fn optional_time(&mut self, name: &str) -> Option<Timestamp> {
        self.optional(name, time)
    }

    /// A number in a range that must be there.
    pub fn number(&mut self, name: &str, range: RangeInclusive<f64>) -> Option<f64> {
        self.required(name, number_in(range))
    }

    /// The same where it may be absent.
    pub fn optional_number(&mut self, name: &str, range: RangeInclusive<f64>) -> Option<f64> {
        self.optional(name, number_in(range))
    }

    /// `true` or `false`, where it is there.
    pub fn optional_flag(&mut self, name: &str) -> Option<bool> {
        self.optional(name, |value| {
            let fault = ("bool_type", "must be true or false".to_owned());
            value.as_bool().ok_or(fault)
        })
    }

    /// A list of texts, at most `most`, where it is there.
    pub fn optional_texts(&mut self, name: &str, most: usize) -> Option<Vec<String>> {
        self.list(name, most, |(index, value), reading| {
            let read = text_up_to(MAX_TEXT_BYTES)(value);
            let Err((kind, message)) = read else {
                return read.ok();
            };
            let mut at = reading.at.clone();
            at.extend([Step::Member(name.to_owned()), Step::Index(index)]);
            reading.faults.push(Invalid { at, message, kind });
            None
        })
    }

    /// An object in the object that must be there.
    pub fn object<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<T> {
        let value = self.required(name, Ok)?;
        self.inside(value, [Step::Member(name.to_owned())], read)
    }

    /// A list of objects, at most `most`, that must be there.
    pub fn objects<T>(
        &mut self,
        name: &str,
        most: usize,
        read: impl Fn(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let value = self.required(name, Ok)?;
        self.members.insert(name.to_owned(), value);
        self.optional_objects(name, most, read)
    }

    /// An object in the object, where it is there.
    pub fn optional_object<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<T> {
        let value = self.raw(name)?;
        self.inside(value, [Step::Member(name.to_owned())], read)
    }

    /// A list of objects, at most `most`, where it is there.
    pub fn optional_objects<T>(
        &mut self,
        name: &str,
        most: usize,
        read: impl Fn(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.list(name, most, |(index, value), reading| {
            let steps = [Step::Member(name.to_owned()), Step::Index(index)];
            reading.inside(value, steps, &read)
        })
    }

    fn list<T>(
        &mut self,
        name: &str,
        most: usize,
        read: impl Fn((usize, Value), &mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let items = self.optional(name, |value| match value {
            Value::Array(items) if items.len() <= most => Ok(items),
            Value::Array(_) => Err(("too_long", format!("has at most {most} items"))),
            _ => Err(("list_type", "must be a list".to_owned())),
        })?;
        let items = items.into_iter().enumerate();
        Some(items.filter_map(|item| read(item, self)).collect())
    }

    fn inside<T>(
        &mut self,
        value: Value,
        steps: impl IntoIterator<Item = Step>,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<T> {
        let mut at = self.at.clone();
        at.extend(steps);
        one(value, &mut at, &mut self.faults, read)
    }
}

/// Reads a text of 1 to so many bytes. What no database can keep as text is refused.
pub fn text_up_to(bytes: usize) -> impl Fn(Value) -> Result<String, Fault> {
    move |value| match value {
        Value::String(text) if text.is_empty() => {
            Err(("string_too_short", "must not be empty".into()))
        }
        Value::String(text) if text.len() > bytes => {
            Err(("string_too_long", format!("is at most {bytes} bytes")))
        }
        Value::String(text) if text.contains('\0') => {
            Err(("string_type", "has a NUL character".into()))
        }
        Value::String(text) => Ok(text),
        _ => Err(("string_type", "must be a string".into())),
    }
}

fn word<T: FromStr<Err: Display>>(value: Value) -> Result<T, Fault> {
    let text = text_up_to(MAX_TEXT_BYTES)(value)?;
    text.parse().map_err(|e: T::Err| ("enum", e.to_string()))
}

/// Reads a moment.
pub fn time(value: Value) -> Result<Timestamp, Fault> {
    let text = text_up_to(MAX_TEXT_BYTES)(value)?;
    Timestamp::parse(&text).map_err(|e| ("datetime", e.to_string()))
}

/// Reads a number in a range.
pub fn number_in(range: RangeInclusive<f64>) -> impl Fn(Value) -> Result<f64, Fault> {
    move |value| match value.as_f64() {
        Some(number) if range.contains(&number) => Ok(number),
        Some(_) => {
            let (least, most) = (range.start(), range.end());
            Err(("out_of_range", format!("is from {least} to {most}")))
        }
        None => Err(("number_type", "must be a number".into())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Severity;

    fn faults<T: std::fmt::Debug>(result: Result<T, Error>) -> Vec<(String, &'static str)> {
        let Err(Error::Invalid(faults)) = result else {
            panic!("{result:?}");
        };
        let path = |at: &[Step]| {
            let steps = at.iter().map(|step| match step {
                Step::Member(name) => name.clone(),
                Step::Index(index) => index.to_string(),
            });
            steps.collect::<Vec<_>>().join(".")
        };
        faults.iter().map(|f| (path(&f.at), f.kind)).collect()
    }

    fn read(r: &mut Reading) -> Option<(String, Severity)> {
        r.ignore("tenant_id");
        let (name, severity) = (r.text("name"), r.word("severity"));
        let _ = r.optional_time("since");
        let _ = r.optional_number("weight", 0.0..=1.0);
        let _ = r.optional_texts("ids", 2);
        let _ = r.optional_object("consents", |r| {
            let care = r.optional_flag("care");
            Some(care)
        });
        let _ = r.optional_objects("edges", 2, |r| r.text("from"));
        Some((name?, severity?))
    }

    #[test]
    fn all_that_is_wrong_is_named_with_its_path() {
        let value = json!({
            "name": 5, "since": "yesterday", "weight": 2, "ids": ["a", 7], "consents": {"care": "yes", "x": 1},
            "edges": [{"from": "a"}, {}], "tenant_id": "other", "colour": null
        });
        let expected = [
            ("name", "string_type"),
            ("severity", "missing"),
            ("since", "datetime"),
            ("weight", "out_of_range"),
            ("ids.1", "string_type"),
            ("consents.care", "bool_type"),
            ("consents.x", "extra_forbidden"),
            ("edges.1.from", "missing"),
            ("colour", "extra_forbidden"),
        ];
        let expected = expected.map(|(path, kind)| (path.to_owned(), kind));
        assert_eq!(faults(object(value, read)), expected);
        let none = faults(object(json!([]), read));
        assert_eq!(none, [(String::new(), "object_type")]);
        let right =
            json!({"name": "a", "severity": "MAJOR", "since": null, "tenant_id": {"any": "thing"}});
        let right = object(right, read).unwrap();
        assert_eq!(right, ("a".to_owned(), Severity::Major));
    }

    #[test]
    fn a_batch_names_its_items_and_not_too_many_of_them() {
        let good = json!({"name": "a", "severity": "minor"});
        let bad = json!({"name": "", "severity": "loud"});
        let batch = vec![good.clone(), bad.clone(), json!(1), good.clone()];
        let expected = [
            ("1.name", "string_too_short"),
            ("1.severity", "enum"),
            ("2", "object_type"),
        ];
        let expected = expected.map(|(path, kind)| (path.to_owned(), kind));
        assert_eq!(faults(each(batch, read)), expected);
        assert_eq!(each(vec![good; 3], read).unwrap().len(), 3);
        assert_eq!(faults(each(vec![bad; 1_000], read)).len(), MAX_FAULTS);
    }

    #[test]
    fn what_a_function_does_not_build_is_an_error_and_what_it_takes_is_none() {
        let none = object(json!({}), |_| None::<()>);
        assert_eq!(faults(none), [(String::new(), "missing")]);
        let rest = object(json!({"a": 1, "b": null}), |r| Some(r.rest())).unwrap();
        assert_eq!(rest.len(), 2);
        for nul in ["\0", &"x".repeat(MAX_TEXT_BYTES + 1)] {
            assert!(object(json!({ "t": nul }), |r| r.text("t")).is_err());
        }
    }
}
