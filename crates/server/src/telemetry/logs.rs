//! Records: one line each, with the fields of the spans around them, the nearest span winning, and the ids of their request.

use std::fmt::{self, Write as _};

use serde_json::Value as Json;
use tidings_core::clock::{Clock, Timestamp};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::SERVICE;
use super::request::RequestIds;
use super::writer::Queue;

/// Fields that stand in every record, `null` where they are not known.
const ALWAYS: [&str; 4] = ["correlation_id", "event_id", "trace_id", "span_id"];
/// Names that are the record's own and that no field may overwrite.
const OWN: [&str; 5] = ["timestamp", "level", "message", "target", "service"];

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// One JSON object a line.
    Json,
    /// Text for people.
    Text,
}

/// The layer that turns events into lines.
#[derive(Debug)]
pub(super) struct Records {
    format: Format,
    queue: Queue,
    clock: Clock,
}

impl Records {
    pub(super) fn new(format: Format, queue: Queue, clock: Clock) -> Self {
        Self {
            format,
            queue,
            clock,
        }
    }

    fn text(&self, line: &Line<'_>) -> String {
        match self.format {
            Format::Json => line.to_json(),
            Format::Text => line.to_text(),
        }
    }

    /// Says how many records were lost before this one.
    fn confess(&self, at: Timestamp) {
        self.queue.confess(|dropped| {
            let mut fields = Fields::default();
            fields.set("dropped", dropped.into());
            self.text(&Line {
                at,
                level: Level::WARN,
                target: module_path!(),
                message: "records were dropped: the log is read too slowly",
                fields: &fields,
            })
        });
    }
}

/// A span's fields, or an event's, in their order.
#[derive(Debug, Default, Clone)]
struct Fields(Vec<(&'static str, Json)>);

impl Fields {
    fn set(&mut self, name: &'static str, value: Json) {
        match self.0.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    fn lacks(&self, name: &str) -> bool {
        self.0.iter().all(|(n, _)| *n != name)
    }

    fn take(&mut self, name: &str) -> Option<Json> {
        let at = self.0.iter().position(|(n, _)| *n == name)?;
        Some(self.0.remove(at).1)
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field.name(), value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field.name(), value.into());
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field.name(), format!("{value:?}").into());
    }
}

impl<S> Layer<S> for Records
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                // The nearest span comes first and wins.
                for (name, value) in &of_span.0 {
                    if fields.lacks(name) {
                        fields.0.push((name, value.clone()));
                    }
                }
            }
        }
        event.record(&mut fields);
        if let Some(ids) = RequestIds::current() {
            for name in ALWAYS {
                if let (true, Some(id)) = (fields.lacks(name), ids.field(name)) {
                    fields.0.push((name, id.into()));
                }
            }
        }
        let message = match fields.take("message") {
            Some(Json::String(text)) => text,
            Some(other) => other.to_string(),
            None => String::new(),
        };
        // Records of the `log` crate come with their target as a field.
        let metadata = event.metadata();
        let from_log = fields.take("log.target");
        let target = from_log.as_ref().and_then(Json::as_str);
        fields.0.retain(|(name, _)| !name.starts_with("log."));
        let at = self.clock.now();
        self.confess(at);
        self.queue.leave(self.text(&Line {
            at,
            level: *metadata.level(),
            target: target.unwrap_or(metadata.target()),
            message: &message,
            fields: &fields,
        }));
    }
}

struct Line<'a> {
    at: Timestamp,
    level: Level,
    target: &'a str,
    message: &'a str,
    fields: &'a Fields,
}

impl Line<'_> {
    fn to_json(&self) -> String {
        let mut line = String::with_capacity(512);
        // Neither a timestamp nor a level has anything to escape. Writing to a String cannot fail.
        let _ = write!(
            line,
            r#"{{"timestamp":"{}","level":"{}""#,
            self.at, self.level
        );
        member(&mut line, "message", &self.message.into());
        member(&mut line, "target", &self.target.into());
        member(&mut line, "service", &SERVICE.into());
        for name in ALWAYS {
            let field = self.fields.0.iter().find(|(n, _)| *n == name);
            member(
                &mut line,
                name,
                field.map_or(&Json::Null, |(_, value)| value),
            );
        }
        for (name, value) in &self.fields.0 {
            if !OWN.contains(name) && !ALWAYS.contains(name) {
                member(&mut line, name, value);
            }
        }
        line.push_str("}\n");
        line
    }

    /// `12:00:00.123 INFO  tidings::app: message key=value`. Control characters are escaped: no record can draw another.
    fn to_text(&self) -> String {
        let at = self.at.to_string();
        let time = at.get(11..23).unwrap_or(&at).trim_end_matches('Z');
        let mut line = format!("{time:<12} {:<5} {}: ", self.level, self.target);
        escape(&mut line, self.message);
        for (name, value) in &self.fields.0 {
            // Writing to a String cannot fail.
            let _ = match value {
                Json::String(text) if text.contains([' ', '"', '=']) || text.is_empty() => {
                    write!(line, " {name}={text:?}")
                }
                Json::String(text) => {
                    let _ = write!(line, " {name}=");
                    escape(&mut line, text);
                    Ok(())
                }
                other => write!(line, " {name}={other}"),
            };
        }
        line.push('\n');
        line
    }
}

/// A further member of an object.
fn member(line: &mut String, name: &str, value: &Json) {
    let _ = write!(line, ",{}:{value}", Json::from(name));
}

fn escape(line: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() {
            let _ = write!(line, "{}", c.escape_default());
        } else {
            line.push(c);
        }
    }
}
