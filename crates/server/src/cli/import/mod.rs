//! `tidings import`: reads events that `export` wrote.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use tidings_client::{Client, Error};
use tidings_core::clock::Clock;
use tidings_core::db::{Db, DbError, Target};
use tidings_core::hub::Hub;
use tidings_core::ingest::{Limits, native};
use tidings_core::log::{Batch, Log, LogConfig, PublishError, dead_letter};
use tidings_core::retention::TopicRules;
use tidings_core::tenant::Tenant;

use super::export::progress;
use super::publish::{client, failure};
use super::{Failure, ServerArgs, warn};
use crate::app::FolderLock;

/// Events of one request or transaction.
const BATCH: usize = 1_000;
/// What an import takes: whatever an export wrote, whatever the limits were then.
const LIMITS: Limits = Limits {
    event: 64 * 1024 * 1024,
    batch: BATCH,
    json_depth: 1_024,
};
/// Where dead letters of an import say that they come from.
const SOURCE: &str = "import";

/// `tidings import`: ids and times are kept, cursors are new, a second import adds nothing. A line that cannot be taken in
/// is kept aside as a dead letter, and the next ones go on.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("to").required(true).args(["url", "data_dir"]))]
pub(crate) struct Args {
    /// Address of the server
    #[arg(long, value_name = "URL", requires = "token")]
    pub(crate) url: Option<String>,
    /// Token of an administrator; all events go to its tenant
    #[arg(long, value_name = "TOKEN", requires = "url")]
    pub(crate) token: Option<String>,
    /// Data folder of a server that is not running
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// File to read; without it, standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// A line, read as far as is needed to send it on.
#[derive(Debug)]
struct Line {
    tenant: Option<String>,
    text: String,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let input: Box<dyn BufRead + Send> = match &args.file {
        Some(path) => {
            let file = File::open(path)
                .map_err(|e| Failure::failed(format_args!("{}: {e}", path.display())))?;
            Box::new(BufReader::new(file))
        }
        None => Box::new(BufReader::new(std::io::stdin())),
    };
    let target = match (args.url, args.token, args.data_dir) {
        (url @ Some(_), token @ Some(_), _) => To::Server(client(&ServerArgs { url, token })?),
        (_, _, Some(folder)) => To::Folder(open(folder).await?),
        _ => return Err(Failure::usage("--url with --token, or --data-dir")),
    };
    let (mut batch, mut aside, bar) = (Vec::new(), 0u64, progress());
    for line in input.lines() {
        let text = line.map_err(|e| Failure::failed(format_args!("cannot read: {e}")))?;
        if text.trim().is_empty() {
            continue;
        }
        bar.inc(1);
        batch.push(read(text));
        if batch.len() == BATCH {
            aside += target.take(std::mem::take(&mut batch)).await?;
        }
    }
    aside += target.take(batch).await?;
    bar.finish();
    if aside > 0 {
        warn(&format!(
            "{aside} lines could not be taken in: `tidings dead-letter list` shows them"
        ));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes the tenant off a line of a data folder's export.
fn read(text: String) -> Line {
    #[derive(Deserialize)]
    struct Of {
        tenant: String,
    }
    let Ok(Of { tenant }) = serde_json::from_str(&text) else {
        return Line { tenant: None, text };
    };
    let mut members: Vec<(String, Box<RawValue>)> = match serde_json::from_str::<Ordered>(&text) {
        Ok(Ordered(members)) => members,
        Err(_) => return Line { tenant: None, text },
    };
    members.retain(|(name, _)| name != "tenant");
    let members: Vec<String> = members
        .iter()
        .map(|(name, value)| format!("{}:{}", serde_json::Value::from(name.as_str()), value.get()))
        .collect();
    Line {
        tenant: Some(tenant),
        text: format!("{{{}}}", members.join(",")),
    }
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

enum To {
    Server(Client),
    Folder(Opened),
}

struct Opened {
    log: Log,
    _lock: FolderLock,
}

async fn open(folder: PathBuf) -> Result<Opened, Failure> {
    let opening = tokio::task::spawn_blocking(move || open_folder(&folder));
    opening.await.map_err(Failure::failed)?
}

fn open_folder(folder: &Path) -> Result<Opened, Failure> {
    std::fs::create_dir_all(folder)
        .map_err(|e| Failure::failed(format_args!("{}: {e}", folder.display())))?;
    let lock = FolderLock::take(folder).map_err(Failure::failed)?;
    let db = Db::open(Target::Sqlite(folder.join("tidings.db"))).map_err(Failure::failed)?;
    let hub = Hub::new(db.clone(), 0);
    // Everything is kept here; what retention says of it is the server's business when it starts.
    let rules = TopicRules::default();
    let config = LogConfig {
        rules,
        idempotency_ttl: Duration::from_secs(86_400),
        boot_file: None,
    };
    let log = Log::open(db, hub, Clock::System, config).map_err(Failure::failed)?;
    Ok(Opened { log, _lock: lock })
}

impl To {
    /// Takes lines in. Says how many had to be set aside.
    async fn take(&self, lines: Vec<Line>) -> Result<u64, Failure> {
        if lines.is_empty() {
            return Ok(0);
        }
        match self {
            Self::Server(client) => to_server(client, lines).await,
            Self::Folder(opened) => to_folder(&opened.log, lines).await,
        }
    }
}

/// Sends lines on; a batch that is refused is halved until the line that is at fault stands alone.
async fn to_server(client: &Client, lines: Vec<Line>) -> Result<u64, Failure> {
    let mut work = vec![lines];
    let mut aside = 0;
    while let Some(mut lines) = work.pop() {
        let body = lines
            .iter()
            .map(|l| l.text.as_str())
            .collect::<Vec<_>>()
            .join("\n");
        match client
            .post("api/v1/events", "application/x-ndjson", body.into())
            .await
        {
            Ok(_) => {}
            Err(e) if !is_about_content(&e) => return Err(failure(e)),
            Err(_) if lines.len() > 1 => {
                let second = lines.split_off(lines.len() / 2);
                work.extend([second, lines]);
            }
            Err(e) => {
                for line in lines {
                    let letter = serde_json::json!({ "source": SOURCE, "reason": e.to_string(), "content": line.text });
                    let posted = client.post(
                        "api/v1/dead-letters",
                        "application/json",
                        letter.to_string().into(),
                    );
                    posted.await.map_err(failure)?;
                    aside += 1;
                }
            }
        }
    }
    Ok(aside)
}

fn is_about_content(e: &Error) -> bool {
    matches!(e.status(), Some(400 | 409 | 413 | 422))
}

async fn to_folder(log: &Log, lines: Vec<Line>) -> Result<u64, Failure> {
    let (mut good, mut aside) = (HashMap::<Tenant, Vec<_>>::new(), Vec::new());
    for line in lines {
        let tenant = line.tenant.as_deref().and_then(|t| Tenant::new(t).ok());
        let event = native::ndjson(line.text.as_bytes(), &LIMITS, None);
        match (tenant, event) {
            (Some(tenant), Ok(events)) => good
                .entry(tenant)
                .or_default()
                .extend(events.into_iter().map(|e| (e, line.text.clone()))),
            (None, _) => {
                return Err(Failure::failed(
                    "a line names no tenant: it is no export of a data folder; import it with --url and --token",
                ));
            }
            (Some(tenant), Err(e)) => aside.push((tenant, e.detail, line.text)),
        }
    }
    for (tenant, events) in good {
        aside.extend(
            publish(log, &tenant, events)
                .await?
                .into_iter()
                .map(|(why, text)| (tenant.clone(), why, text)),
        );
    }
    let count = aside.len() as u64;
    for (tenant, why, text) in aside {
        let write = log.write::<_, DbError>(&tenant, move |tx| {
            let (number, now) = (tx.tenant_number(), tx.now());
            dead_letter::insert(tx, number, SOURCE, &why, &text, now)
        });
        write
            .await
            .map_err(|e| Failure::failed(format_args!("cannot store: {e}")))?;
    }
    Ok(count)
}

/// Publishes events of one tenant; one whose id stands with other content is given back.
async fn publish(
    log: &Log,
    tenant: &Tenant,
    events: Vec<(tidings_core::event::NewEvent, String)>,
) -> Result<Vec<(String, String)>, Failure> {
    let mut aside = Vec::new();
    let mut left = events;
    while !left.is_empty() {
        let batch = Batch {
            subject: SOURCE.into(),
            events: left.iter().map(|(e, _)| e.clone()).collect(),
            idempotency: None,
        };
        match log.publish(tenant, batch).await {
            Ok(_) => break,
            Err(PublishError::IdConflict { index }) if index < left.len() => {
                let (_, text) = left.remove(index);
                aside.push((PublishError::IdConflict { index }.to_string(), text));
            }
            Err(e) => return Err(Failure::failed(format_args!("cannot store: {e}"))),
        }
    }
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_folder_loses_its_tenant_and_nothing_else() {
        let line = read(r#"{"tenant":"a","id":"1","data":{"n":1.50,"tenant":"b"}}"#.into());
        assert_eq!(line.tenant.as_deref(), Some("a"));
        assert_eq!(line.text, r#"{"id":"1","data":{"n":1.50,"tenant":"b"}}"#);
        assert_eq!(read("{".into()).tenant, None);
    }
}
