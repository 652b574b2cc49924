//! A line of NDJSON, read as far as is needed to send it on.

use serde::Deserialize;
use serde_json::value::RawValue;

/// A line.
#[derive(Debug)]
pub(super) struct Line {
    /// Its number in the file, from 1.
    pub(super) number: u64,
    /// Whose event it is, where it says so: those of a data folder's export do.
    pub(super) tenant: Option<String>,
    /// The event without its tenant.
    pub(super) text: String,
    /// Why it cannot be an event, where that is plain already.
    pub(super) fault: Option<&'static str>,
}

impl Line {
    /// Reads a line. A damaged one still has its tenant, where that can be read.
    pub(super) fn read(number: u64, bytes: &[u8]) -> Self {
        let Ok(text) = std::str::from_utf8(bytes) else {
            let text = String::from_utf8_lossy(bytes).into_owned();
            return Self {
                number,
                tenant: first_member(&text),
                text,
                fault: Some("not UTF-8"),
            };
        };
        let (tenant, text) = split(text);
        Self {
            number,
            tenant,
            text,
            fault: None,
        }
    }
}

/// Takes the tenant off an event.
fn split(text: &str) -> (Option<String>, String) {
    #[derive(Deserialize)]
    struct Of {
        tenant: String,
    }
    let whole = || text.to_owned();
    let Ok(Ordered(mut members)) = serde_json::from_str(text) else {
        return (first_member(text), whole());
    };
    let Ok(Of { tenant }) = serde_json::from_str(text) else {
        return (None, whole());
    };
    members.retain(|(name, _)| name != "tenant");
    let members: Vec<String> = members
        .iter()
        .map(|(name, value)| format!("{}:{}", serde_json::Value::from(name.as_str()), value.get()))
        .collect();
    (Some(tenant), format!("{{{}}}", members.join(",")))
}

/// The tenant of a line that is no JSON: an export writes it first.
fn first_member(text: &str) -> Option<String> {
    let rest = text.strip_prefix("{\"tenant\":")?;
    serde_json::Deserializer::from_str(rest)
        .into_iter()
        .next()?
        .ok()
}

/// An object's members as they stand.
struct Ordered(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> serde::de::Visitor<'de> for Object {
            type Value = Ordered;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Ordered, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Ordered(members))
            }
        }
        from.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_folder_loses_its_tenant_and_nothing_else() {
        let line = Line::read(
            7,
            br#"{"tenant":"a","id":"1","data":{"n":1.50,"tenant":"b"}}"#,
        );
        assert_eq!((line.number, line.tenant.as_deref()), (7, Some("a")));
        assert_eq!(line.text, r#"{"id":"1","data":{"n":1.50,"tenant":"b"}}"#);
    }

    #[test]
    fn a_damaged_line_keeps_its_text_and_says_whose_it_is() {
        let tenant = |bytes: &[u8]| {
            let line = Line::read(1, bytes);
            assert_eq!(line.text, String::from_utf8_lossy(bytes));
            (line.tenant, line.fault.is_some())
        };
        assert_eq!(tenant(b"{"), (None, false));
        assert_eq!(tenant(br#"{"tenant":7}"#), (None, false));
        let cut = br#"{"tenant":"a\"b","id":"1","da"#;
        assert_eq!(tenant(cut), (Some("a\"b".into()), false));
        let broken = b"{\"tenant\":\"a\",\"id\":\"\xff\"}";
        assert_eq!(tenant(broken), (Some("a".into()), true));
    }
}
