//! The members of a JSON object, in order, with their values as text.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Class, Invalid};

/// A member's name, borrowed where it has no escape.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// An object whose values have not been read yet.
pub(super) struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some(Name(name)) = map.next_key()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        from.deserialize_map(Object)
    }
}

/// Reads an object's members one by one, and gathers all that is wrong.
pub(super) struct Reading<'a> {
    members: Members<'a>,
    errors: Vec<(String, String)>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(item: &'a RawValue) -> Result<Self, Invalid> {
        let members: Members<'a> = serde_json::from_str(item.get()).map_err(|e| {
            // The text was accepted as JSON: only its kind can be wrong, or a name that is no Unicode.
            let class = if e.is_data() {
                Class::Invalid
            } else {
                Class::Malformed
            };
            Invalid::new(
                class,
                if e.is_data() {
                    "an event is a JSON object".into()
                } else {
                    e.to_string()
                },
            )
        })?;
        let mut reading = Self {
            members,
            errors: Vec::new(),
        };
        let members = &reading.members.0;
        for (at, (name, _)) in members.iter().enumerate() {
            if members[..at].iter().any(|(earlier, _)| earlier == name) {
                reading
                    .errors
                    .push((name.to_string(), "stands twice".into()));
            }
        }
        Ok(reading)
    }

    pub(super) fn fault(&mut self, field: &str, detail: impl fmt::Display) {
        self.errors.push((field.to_owned(), detail.to_string()));
    }

    /// Takes a member's value as text.
    pub(super) fn raw(&mut self, name: &str) -> Option<&'a RawValue> {
        let at = self.members.0.iter().position(|(n, _)| n == name)?;
        Some(self.members.0.remove(at).1)
    }

    /// Takes a text member; null counts as absent.
    pub(super) fn text(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let raw = self.raw(name)?;
        match serde_json::from_str::<Option<Name<'a>>>(raw.get()) {
            Ok(text) => text.map(|Name(text)| text),
            Err(e) => {
                let is_text = raw.get().starts_with('"');
                self.fault(
                    name,
                    if is_text {
                        format!("not Unicode text: {e}")
                    } else {
                        "must be a string".into()
                    },
                );
                None
            }
        }
    }

    /// Takes a text member and reads it.
    pub(super) fn read<T, E: fmt::Display>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(name)?;
        match read(&text) {
            Ok(value) => Some(value),
            Err(e) => {
                self.fault(name, e);
                None
            }
        }
    }

    /// The same for a member that must be there.
    pub(super) fn required<T, E: fmt::Display>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let faults = self.errors.len();
        let value = self.read(name, read);
        if value.is_none() && self.errors.len() == faults {
            self.fault(name, "is required");
        }
        value
    }

    /// The members that nobody has taken.
    pub(super) fn rest(&mut self) -> Vec<(Cow<'a, str>, &'a RawValue)> {
        std::mem::take(&mut self.members.0)
    }

    /// All well, or all that is not.
    pub(super) fn done(self) -> Result<(), Invalid> {
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(Invalid::of_members(self.errors))
        }
    }
}
