//! `tidings export`: writes a log's events as NDJSON.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::value::RawValue;
use tidings_client::Client;
use tidings_core::db::{Db, Target};
use tidings_core::hub::Rights;
use tidings_core::log::store;
use tidings_core::topic::{Pattern, Patterns};

use super::publish::{client, failure};
use super::{Failure, ServerArgs};

/// Events of one page.
const PAGE: usize = 1_000;

/// `tidings export`: from a server with a token, or from a data folder, where each line also has its tenant.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("from").required(true).args(["url", "data_dir"]))]
pub(crate) struct Args {
    /// Address of the server
    #[arg(long, value_name = "URL", requires = "token")]
    pub(crate) url: Option<String>,
    /// Token of the tenant
    #[arg(long, value_name = "TOKEN", requires = "url")]
    pub(crate) token: Option<String>,
    /// Data folder of a server, running or not
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Topic or pattern; may be repeated. Without it, everything
    #[arg(long = "topic", value_name = "TOPIC")]
    pub(crate) topics: Vec<String>,
    /// File to write; without it, standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// Where lines go, and who is told how many.
struct Lines {
    out: Box<dyn Write + Send>,
    bar: ProgressBar,
}

impl Lines {
    fn open(out: Option<&Path>) -> Result<Self, Failure> {
        let out: Box<dyn Write + Send> = match out {
            Some(path) => {
                let file = File::create(path);
                Box::new(BufWriter::new(file.map_err(|e| {
                    Failure::failed(format_args!("{}: {e}", path.display()))
                })?))
            }
            None => Box::new(BufWriter::new(std::io::stdout())),
        };
        Ok(Self {
            out,
            bar: progress(),
        })
    }

    fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.bar.inc(1);
        let written = self
            .out
            .write_all(text.as_bytes())
            .and_then(|()| self.out.write_all(b"\n"));
        written.map_err(|e| Failure::failed(format_args!("cannot write: {e}")))
    }

    fn finish(mut self) -> Result<ExitCode, Failure> {
        self.out
            .flush()
            .map_err(|e| Failure::failed(format_args!("cannot write: {e}")))?;
        self.bar.finish();
        Ok(ExitCode::SUCCESS)
    }
}

/// Counts on standard error, where that is a terminal.
pub(super) fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template("{human_pos} events, {per_sec}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::no_length().with_style(style)
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let topics = if args.topics.is_empty() {
        vec!["**".to_owned()]
    } else {
        args.topics
    };
    let patterns: Result<Vec<_>, _> = topics
        .iter()
        .map(|t| Pattern::new(t).map_err(|e| format!("--topic {t}: {e}")))
        .collect();
    let patterns = Patterns::new(patterns.map_err(Failure::usage)?);
    let lines = Lines::open(args.out.as_deref())?;
    match (args.url, args.token, args.data_dir) {
        (url @ Some(_), token @ Some(_), _) => {
            from_server(&client(&ServerArgs { url, token })?, &topics, lines).await
        }
        (_, _, Some(folder)) => from_folder(&folder, &patterns, lines).await,
        _ => Err(Failure::usage("--url with --token, or --data-dir")),
    }
}

async fn from_server(
    client: &Client,
    topics: &[String],
    mut lines: Lines,
) -> Result<ExitCode, Failure> {
    #[derive(Deserialize)]
    struct Page {
        events: Vec<Box<RawValue>>,
        cursor: String,
    }
    let mut after = String::new();
    let limit = PAGE.to_string();
    loop {
        let mut query: Vec<(&str, &str)> = topics.iter().map(|t| ("topic", t.as_str())).collect();
        query.extend([("after", after.as_str()), ("limit", limit.as_str())]);
        let page = client.get("api/v1/events", &query).await.map_err(failure)?;
        let page: Page = serde_json::from_str(page.get())
            .map_err(|e| Failure::failed(format_args!("the answer: {e}")))?;
        for event in &page.events {
            lines.line(&without_cursor(event.get()))?;
        }
        if page.cursor == after {
            return lines.finish();
        }
        after = page.cursor;
    }
}

/// A cursor is of one log: events leave theirs behind. It is the first member, and holds neither quotes nor escapes.
fn without_cursor(event: &str) -> String {
    let rest = event
        .strip_prefix("{\"cursor\":\"")
        .and_then(|rest| rest.split_once("\","));
    rest.map_or_else(|| event.to_owned(), |(_, members)| format!("{{{members}"))
}

async fn from_folder(
    folder: &Path,
    patterns: &Patterns,
    mut lines: Lines,
) -> Result<ExitCode, Failure> {
    let path = folder.join("tidings.db");
    if !path.exists() {
        return Err(Failure::failed(format_args!(
            "{}: there is no such database",
            path.display()
        )));
    }
    let patterns = patterns.clone();
    let read = tokio::task::spawn_blocking(move || {
        let db = Db::open(Target::Sqlite(path)).map_err(Failure::failed)?;
        let mut conn = db.connect().map_err(Failure::failed)?;
        for log in store::tenants(&mut conn).map_err(Failure::failed)? {
            let tenant = serde_json::Value::from(log.tenant.as_str());
            let mut after = 0;
            loop {
                let page = store::page(&mut conn, &log, after, &patterns, PAGE, |topic| {
                    Rights::All.admits(topic)
                });
                let page = page.map_err(Failure::failed)?;
                for event in &page.events {
                    lines.line(&format!(
                        "{{\"tenant\":{tenant},{}",
                        event.json.get(1..).unwrap_or("}")
                    ))?;
                }
                after = page.end.next;
                if page.end.is_end {
                    break;
                }
            }
        }
        lines.finish()
    });
    read.await.map_err(Failure::failed)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_stays_behind() {
        let line = without_cursor(r#"{"cursor":"E-1","id":"a","data":{"cursor":"x"}}"#);
        assert_eq!(line, r#"{"id":"a","data":{"cursor":"x"}}"#);
    }
}
