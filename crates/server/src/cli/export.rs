//! `tidings export`: writes a log's events as NDJSON.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Deserialize;
use serde_json::value::RawValue;
use tempfile::NamedTempFile;
use tidings_client::{Client, Gap};
use tidings_core::cursor::Cursor;
use tidings_core::db::{Db, Target};
use tidings_core::hub::Rights;
use tidings_core::log::store;
use tidings_core::topic::{MAX_PATTERNS, Pattern, Patterns};

use super::progress::Progress;
use super::{Failure, ServerArgs, warn};

/// Events of one page.
const PAGE: usize = 1_000;

/// `tidings export`: from a server with a token, or from a data folder, where each line also has its tenant.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// Data folder of a server, running or not, in place of --url and --token
    #[arg(long, value_name = "DIR", conflicts_with_all = ["url", "token", "ca"])]
    data_dir: Option<PathBuf>,
    /// Topic or pattern; may be repeated. Without it, everything
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// File to write, once everything is there; without it, standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Where lines go, and who is told how many.
struct Lines {
    out: Out,
    progress: Progress,
}

enum Out {
    /// Standard output, or something that is no file.
    Stream(BufWriter<Box<dyn Write + Send>>),
    /// A file beside the one that was named, which takes its place at the end: what stands there may be the last backup.
    Beside(BufWriter<NamedTempFile>, PathBuf),
}

impl Lines {
    /// `length` is how far the log goes, in its own numbers.
    fn open(path: Option<&Path>, length: Option<u64>) -> Result<Self, Failure> {
        let out = match path {
            None => Out::Stream(BufWriter::new(Box::new(std::io::stdout()))),
            Some(path) => Out::open(path)
                .map_err(|e| Failure::usage(format_args!("--out {}: {e}", path.display())))?,
        };
        Ok(Self {
            out,
            progress: Progress::new(length),
        })
    }

    /// Writes a line. False where whoever reads has seen enough, as `head` does.
    fn line(&mut self, text: &str) -> Result<bool, Failure> {
        self.progress.event();
        let out: &mut dyn Write = match &mut self.out {
            Out::Stream(out) => out,
            Out::Beside(out, _) => out,
        };
        go_on(
            out.write_all(text.as_bytes())
                .and_then(|()| out.write_all(b"\n")),
        )
    }

    fn finish(self) -> Result<ExitCode, Failure> {
        match self.out {
            Out::Stream(mut out) => {
                go_on(out.flush())?;
            }
            Out::Beside(out, path) => {
                let into = || {
                    let file = out
                        .into_inner()
                        .map_err(std::io::IntoInnerError::into_error)?;
                    file.as_file().sync_all()?;
                    file.persist(&path).map_err(|e| e.error)
                };
                into().map_err(|e| Failure::failed(format_args!("{}: {e}", path.display())))?;
            }
        }
        self.progress.finish();
        Ok(ExitCode::SUCCESS)
    }
}

impl Out {
    fn open(path: &Path) -> std::io::Result<Self> {
        if path.metadata().is_ok_and(|m| !m.is_file()) {
            let file = File::options().write(true).open(path)?;
            return Ok(Self::Stream(BufWriter::new(Box::new(file))));
        }
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        let beside = NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
        Ok(Self::Beside(BufWriter::new(beside), path.to_owned()))
    }
}

fn go_on(written: std::io::Result<()>) -> Result<bool, Failure> {
    match written {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(Failure::failed(format_args!("cannot write: {e}"))),
    }
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
    if patterns.as_slice().len() > MAX_PATTERNS {
        return Err(Failure::usage(format_args!(
            "--topic may be given {MAX_PATTERNS} times"
        )));
    }
    match args.data_dir {
        Some(folder) => {
            let db = folder.join("tidings.db");
            if !db.is_file() {
                return Err(Failure::usage(format_args!(
                    "--data-dir {}: there is no {}",
                    folder.display(),
                    db.display()
                )));
            }
            from_folder(db, patterns, args.out).await
        }
        None => {
            let client = args.server.client()?;
            from_server(&client, &topics, args.out.as_deref()).await
        }
    }
}

async fn from_server(
    client: &Client,
    topics: &[String],
    out: Option<&Path>,
) -> Result<ExitCode, Failure> {
    #[derive(Deserialize)]
    struct Page {
        events: Vec<Box<RawValue>>,
        cursor: String,
        gap: Option<Gap>,
    }
    let mut lines = Lines::open(out, head(client).await)?;
    let (mut after, mut first_gap) = (String::new(), None);
    let limit = PAGE.to_string();
    loop {
        let mut query: Vec<(&str, &str)> = topics.iter().map(|t| ("topic", t.as_str())).collect();
        query.extend([("after", after.as_str()), ("limit", limit.as_str())]);
        let page = client.get("api/v1/events", &query).await?;
        let page: Page = serde_json::from_str(page.get())
            .map_err(|e| Failure::failed(format_args!("the answer: {e}")))?;
        for event in &page.events {
            if !lines.line(&without_cursor(event.get()))? {
                return Ok(ExitCode::SUCCESS);
            }
        }
        let gap = page.gap.map(|gap| gap.oldest);
        // One that grows on the way is news; one that stood from the beginning is not.
        if gap.is_some() && first_gap.get_or_insert_with(|| gap.clone()) != &gap {
            first_gap = Some(gap);
            warn("retention has taken events while they were being read");
        }
        if let Ok(cursor) = Cursor::parse(page.cursor.as_bytes()) {
            lines.progress.reach(cursor.seq);
        }
        if page.cursor == after {
            return lines.finish();
        }
        after = page.cursor;
    }
}

/// How far the server's log goes, where it says so.
async fn head(client: &Client) -> Option<u64> {
    #[derive(Deserialize)]
    struct Status {
        log: Log,
    }
    #[derive(Deserialize)]
    struct Log {
        head: String,
    }
    let status = client.get("api/v1/status", &[]).await.ok()?;
    let status: Status = serde_json::from_str(status.get()).ok()?;
    let head = Cursor::parse(status.log.head.as_bytes()).ok()?;
    Some(head.seq)
}

/// A cursor is of one log: events leave theirs behind. It is the first member, and holds neither quotes nor escapes.
fn without_cursor(event: &str) -> String {
    let rest = event
        .strip_prefix("{\"cursor\":\"")
        .and_then(|rest| rest.split_once("\","));
    rest.map_or_else(|| event.to_owned(), |(_, members)| format!("{{{members}"))
}

async fn from_folder(
    db: PathBuf,
    patterns: Patterns,
    out: Option<PathBuf>,
) -> Result<ExitCode, Failure> {
    let read = tokio::task::spawn_blocking(move || {
        let db = Db::open(Target::Sqlite(db)).map_err(Failure::failed)?;
        let (mut conn, logs) = tidings_core::log::on_disk(&db).map_err(Failure::failed)?;
        let length = logs.iter().map(|log| log.head()).sum();
        let (mut lines, mut before) = (Lines::open(out.as_deref(), Some(length))?, 0);
        for log in logs {
            let tenant = serde_json::Value::from(log.tenant.as_str());
            let mut after = 0;
            loop {
                let page = store::kept(&mut conn, &log, after, &patterns, PAGE, &|topic| {
                    Rights::All.admits(topic)
                });
                let page = page.map_err(Failure::failed)?;
                for event in &page.events {
                    let members = event.json.get(1..).unwrap_or("}");
                    if !lines.line(&format!("{{\"tenant\":{tenant},{members}"))? {
                        return Ok(ExitCode::SUCCESS);
                    }
                }
                after = page.end.next;
                lines.progress.reach(before + after);
                if page.end.is_end {
                    break;
                }
            }
            before += log.head();
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
