//! Which alarms truly belong together, as a file: what correlation is scored against, with a server or without.
//!
//! JSON Lines, a record each, told apart by `record`:
//!
//! | record | has |
//! | --- | --- |
//! | `run` | the first line: `format`, and whatever says where the rest comes from |
//! | `entity` | `id`, and the relations that are known: `depends_on`, `part_of` |
//! | `fault` | `fault`, its number; `root`, the entity at fault |
//! | `occurrence` | `event_id`, `entity_id`, `alarm_type`, `raised_at`; `fault`, one of a line above |
//!
//! [`write_head`] and [`write_occurrence`] write what the generator knows; [`Truth::read`] takes anybody's.
//!
//! - `judge`: how well clusters agree with the truth

mod judge;

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead, Write};
use std::str::FromStr;

use serde_json::{Value, json};

use crate::correlate::Occurrence;
use crate::reading::{self, Fault, Reading};
use crate::simulate::{Alarm, Run, Scenario};
use crate::topology::Topology;
use crate::{Error, Step};

pub use judge::{Partition, Verdict};

/// What the first record says that the file is.
pub const FORMAT: &str = "tidings-truth/1";
/// Relations of each kind that one entity may have, as those that are stored.
const MAX_RELATIONS: usize = 1_000;

/// What is truly so.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    /// The relations that are known, which need not be the true ones.
    pub topology: Topology,
    /// The entity at fault, by fault.
    pub roots: HashMap<u64, String>,
    /// In the order of the file; each `event_id` once.
    pub occurrences: Vec<Occurrence>,
    /// The fault of each occurrence.
    pub faults: Vec<u64>,
}

/// Why a file is no truth.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {}{message}", .field.as_ref().map(|f| format!("{f}: ")).unwrap_or_default())]
pub struct Unreadable {
    /// Counted from 1.
    pub line: u64,
    /// The member at fault, where it is one.
    pub field: Option<String>,
    /// What is allowed, in words.
    pub message: String,
}

/// Writes all but the occurrences of a run: they follow as they are made known.
pub fn write_head(to: &mut impl Write, scenario: &Scenario, run: &Run) -> io::Result<()> {
    let flaws = scenario.flaws;
    let first = json!({
        "record": "run",
        "format": FORMAT,
        "seed": scenario.seed,
        "faults": scenario.faults,
        "span_seconds": scenario.span.as_secs_f64(),
        "start": scenario.start.to_string(),
        "missing": flaws.missing,
        "wrong": flaws.wrong,
        "late": flaws.late,
    });
    writeln!(to, "{first}")?;
    for node in &run.nodes {
        let mut record = node.body();
        record["record"] = "entity".into();
        record["true_parent"] = node.true_parent.clone().into();
        writeln!(to, "{record}")?;
    }
    for (fault, root) in (0u32..).zip(&run.roots) {
        let is_unrelated = fault >= run.faults;
        let record =
            json!({"record": "fault", "fault": fault, "root": root, "unrelated": is_unrelated});
        writeln!(to, "{record}")?;
    }
    Ok(())
}

/// Writes one occurrence under the id that it is known by.
pub fn write_occurrence(to: &mut impl Write, alarm: &Alarm, event_id: &str) -> io::Result<()> {
    let it = &alarm.occurrence;
    let record = json!({
        "record": "occurrence",
        "event_id": event_id,
        "entity_id": it.entity_id,
        "alarm_type": it.alarm_type,
        "severity": alarm.severity,
        "raised_at": it.raised_at.to_string(),
        "fault": alarm.fault,
    });
    writeln!(to, "{record}")
}

/// The word of a record.
enum Kind {
    Run,
    Entity,
    Fault,
    Occurrence,
}

#[derive(Debug, thiserror::Error)]
#[error("a record is run, entity, fault or occurrence")]
struct UnknownKind;

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(word: &str) -> Result<Self, UnknownKind> {
        match word {
            "run" => Ok(Self::Run),
            "entity" => Ok(Self::Entity),
            "fault" => Ok(Self::Fault),
            "occurrence" => Ok(Self::Occurrence),
            _ => Err(UnknownKind),
        }
    }
}

/// A line that was read.
enum Record {
    Run,
    Entity { id: String, parents: Vec<String> },
    Fault { fault: u64, root: String },
    Occurrence { occurrence: Occurrence, fault: u64 },
}

/// What has been read so far, and what must not come twice.
#[derive(Default)]
struct Reader {
    truth: Truth,
    is_begun: bool,
    entities: HashSet<String>,
    events: HashSet<String>,
}

/// The member at fault, if it is one, and what is allowed.
type Complaint = (Option<String>, String);

impl Truth {
    /// Reads a file. Empty lines are passed over; the first thing that is wrong ends it.
    pub fn read(from: impl BufRead) -> Result<Self, Unreadable> {
        let (mut reader, mut last) = (Reader::default(), 0);
        for (line, text) in (1u64..).zip(from.lines()) {
            let wrong = |(field, message)| Unreadable {
                line,
                field,
                message,
            };
            let text = text.map_err(|e| wrong((None, e.to_string())))?;
            last = line;
            if !text.trim().is_empty() {
                reader.take(&text).map_err(wrong)?;
            }
        }
        if reader.truth.occurrences.is_empty() {
            return Err(Unreadable {
                line: last,
                field: None,
                message: "the file ends without an occurrence".into(),
            });
        }
        Ok(reader.truth)
    }
}

impl Reader {
    fn take(&mut self, text: &str) -> Result<(), Complaint> {
        let value = serde_json::from_str(text).map_err(|e| (None, format!("not JSON: {e}")))?;
        let record = reading::object(value, record).map_err(first)?;
        match record {
            Record::Run if self.is_begun => Err(at("record", "only the first line is a run")),
            Record::Run => {
                self.is_begun = true;
                Ok(())
            }
            _ if !self.is_begun => Err(at(
                "record",
                format!("the first line is a run of format {FORMAT}"),
            )),
            Record::Entity { id, parents } => self.entity(id, parents),
            Record::Fault { fault, root } => match self.truth.roots.insert(fault, root) {
                None => Ok(()),
                Some(_) => Err(at("fault", format!("fault {fault} stands above already"))),
            },
            Record::Occurrence { occurrence, fault } => self.occurrence(occurrence, fault),
        }
    }

    fn entity(&mut self, id: String, parents: Vec<String>) -> Result<(), Complaint> {
        self.truth.topology.set(&id, parents);
        if self.entities.insert(id) {
            Ok(())
        } else {
            Err(at("id", "stands above already"))
        }
    }

    fn occurrence(&mut self, occurrence: Occurrence, fault: u64) -> Result<(), Complaint> {
        if !self.truth.roots.contains_key(&fault) {
            return Err(at("fault", format!("no fault {fault} stands above")));
        }
        if !self.events.insert(occurrence.event_id.clone()) {
            return Err(at("event_id", "stands above already"));
        }
        self.truth.occurrences.push(occurrence);
        self.truth.faults.push(fault);
        Ok(())
    }
}

fn at(field: &str, message: impl Into<String>) -> Complaint {
    (Some(field.to_owned()), message.into())
}

fn record(r: &mut Reading) -> Option<Record> {
    match r.word("record")? {
        Kind::Run => {
            let format = r.required("format", |value| is_format(&value));
            r.rest();
            format.map(|()| Record::Run)
        }
        Kind::Entity => {
            r.ignore("entity_type");
            r.ignore("true_parent");
            let id = r.text("id");
            let relations =
                ["depends_on", "part_of"].map(|name| r.optional_texts(name, MAX_RELATIONS));
            let parents = relations.into_iter().flatten().flatten().collect();
            Some(Record::Entity { id: id?, parents })
        }
        Kind::Fault => {
            r.ignore("unrelated");
            let (fault, root) = (r.required("fault", |value| whole(&value)), r.text("root"));
            Some(Record::Fault {
                fault: fault?,
                root: root?,
            })
        }
        Kind::Occurrence => {
            r.ignore("severity");
            let (event_id, entity_id) = (r.text("event_id"), r.text("entity_id"));
            let (alarm_type, raised_at) = (r.text("alarm_type"), r.time("raised_at"));
            let fault = r.required("fault", |value| whole(&value));
            let occurrence = Occurrence {
                event_id: event_id?,
                entity_id: entity_id?,
                alarm_type: alarm_type?,
                raised_at: raised_at?,
            };
            Some(Record::Occurrence {
                occurrence,
                fault: fault?,
            })
        }
    }
}

fn is_format(value: &Value) -> Result<(), Fault> {
    if *value == FORMAT {
        Ok(())
    } else {
        Err(("enum", format!("{value} cannot be read; {FORMAT} can")))
    }
}

fn whole(value: &Value) -> Result<u64, Fault> {
    value
        .as_u64()
        .ok_or(("int_type", "must be a whole number, 0 or more".into()))
}

/// The first thing that is wrong with a record.
fn first(error: Error) -> Complaint {
    let Error::Invalid(faults) = error else {
        return (None, error.to_string());
    };
    let Some(fault) = faults.into_iter().next() else {
        return (None, "is wrong".into());
    };
    let steps = fault.at.iter().map(|step| match step {
        Step::Member(name) => name.clone(),
        Step::Index(index) => index.to_string(),
    });
    let path = steps.collect::<Vec<_>>().join(".");
    (Some(path).filter(|path| !path.is_empty()), fault.message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::{Flaws, Load};

    fn written(seed: u64) -> Vec<u8> {
        let scenario = Scenario {
            flaws: Flaws {
                missing: 0.1,
                ..Flaws::default()
            },
            ..Scenario::new(seed, Load::Storm)
        };
        let (run, mut file) = (scenario.run(), Vec::new());
        write_head(&mut file, &scenario, &run).unwrap();
        for alarm in &run.alarms {
            write_occurrence(&mut file, alarm, &alarm.occurrence.event_id).unwrap();
        }
        file
    }

    #[test]
    fn what_is_written_reads_back_and_is_that_of_its_seed() {
        let file = written(7);
        assert_eq!(file, written(7));
        assert_ne!(file, written(8));
        let truth = Truth::read(&file[..]).unwrap();
        let flaws = Flaws {
            missing: 0.1,
            ..Flaws::default()
        };
        let run = Scenario {
            flaws,
            ..Scenario::new(7, Load::Storm)
        }
        .run();
        let (occurrences, faults): (Vec<_>, Vec<_>) = run
            .alarms
            .iter()
            .map(|a| (a.occurrence.clone(), u64::from(a.fault)))
            .unzip();
        assert_eq!((truth.occurrences, truth.faults), (occurrences, faults));
        assert_eq!(truth.roots.len(), run.roots.len());
        assert!(
            (0u64..)
                .zip(&run.roots)
                .all(|(n, root)| truth.roots[&n] == *root)
        );
        let known = run.topology();
        for node in &run.nodes {
            assert_eq!(truth.topology.parents(&node.id), known.parents(&node.id));
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_line_and_member() {
        const RUN: &str = r#"{"record":"run","format":"tidings-truth/1","by":"me"}"#;
        const FAULT: &str = r#"{"record":"fault","fault":0,"root":"a"}"#;
        const ALARM: &str = r#"{"record":"occurrence","event_id":"1","entity_id":"a","alarm_type":"T","raised_at":"2026-01-01T00:00:00Z","fault":0}"#;
        let wrong = |lines: &[&str]| {
            Truth::read(lines.join("\n").as_bytes())
                .unwrap_err()
                .to_string()
        };
        assert!(Truth::read([RUN, "", FAULT, ALARM, ""].join("\n").as_bytes()).is_ok());
        for (lines, expected) in [
            (&[][..], "line 0: the file ends without an occurrence"),
            (&[RUN, FAULT], "line 2: the file ends without an occurrence"),
            (
                &[FAULT],
                "line 1: record: the first line is a run of format tidings-truth/1",
            ),
            (&[RUN, RUN], "line 2: record: only the first line is a run"),
            (
                &[r#"{"record":"run","format":"x/2"}"#],
                "line 1: format: \"x/2\" cannot be read; tidings-truth/1 can",
            ),
            (
                &[RUN, r#"{"record":"alarm"}"#],
                "line 2: record: a record is run, entity, fault or occurrence",
            ),
            (&[RUN, "[]"], "line 2: must be an object"),
            (
                &[RUN, "", FAULT, &ALARM.replace("2026-01-01", "soon-")],
                "line 4: raised_at: not an RFC 3339 date and time with an offset, such as 2026-01-31T12:00:00Z",
            ),
            (
                &[RUN, &FAULT.replace('0', "-1")],
                "line 2: fault: must be a whole number, 0 or more",
            ),
            (
                &[RUN, FAULT, FAULT],
                "line 3: fault: fault 0 stands above already",
            ),
            (&[RUN, ALARM], "line 2: fault: no fault 0 stands above"),
            (
                &[RUN, FAULT, ALARM, ALARM],
                "line 4: event_id: stands above already",
            ),
            (
                &[RUN, r#"{"record":"entity","id":"a","depend_on":["b"]}"#],
                "line 2: depend_on: is not a member of this",
            ),
            (
                &[RUN, r#"{"record":"entity","id":"a","part_of":["b",7]}"#],
                "line 2: part_of.1: must be a string",
            ),
        ] {
            assert_eq!(wrong(lines), expected);
        }
        assert!(wrong(&[RUN, "{"]).starts_with("line 2: not JSON: EOF"));
    }
}
