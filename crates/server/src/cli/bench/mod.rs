//! `tidings bench`: measures a server, one that runs or one that it starts for itself on a temporary folder.
//!
//! - `target`: which server, and what the system says about its process
//! - `wire`: HTTP/1.1 on a bare socket, so that thousands of readers cost little here
//! - `mark`: what a measured event carries, and the account of what each reader got
//! - `readers`, `publishers`: the two ends of the measurement
//! - `modes`: what is done in which order
//! - `report`: the figures, as a table and as JSON
//!
//! Latencies are from just before the publish is written to the moment that the event's last byte was read, on one
//! clock: the bench is both ends. Server and bench share the machine, so absolute figures are those of both.

mod mark;
mod modes;
mod publishers;
mod readers;
mod report;
mod target;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) mod toy;
mod wire;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use self::target::Target;
use super::{Failure, ServerArgs, print};

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// Every reader gets every event: CPU per delivery, latency
    Broadcast,
    /// Each reader has a topic of its own: CPU per publish and delivery
    Unicast,
    /// Nothing is sent: memory and CPU of open connections
    Idle,
    /// Nobody reads: durable publishes a second
    Ingest,
    /// Readers come back after a backlog: events a second from the log
    Replay,
}

/// `tidings bench`. Without --url it starts a server of its own.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// What to measure
    #[arg(value_enum)]
    mode: Mode,
    /// Address of a running server, on this machine; it is never taken from the environment
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Token of that server [environment: `TIDINGS_TOKEN`]
    #[arg(long, value_name = "TOKEN", requires = "url")]
    token: Option<String>,
    /// Process of that server, for its CPU and memory; known by itself without --url
    #[arg(long, value_name = "PID", requires = "url")]
    server_pid: Option<u32>,
    /// Open streams (not ingest) [default: 1000; replay 200]
    #[arg(long, short = 'n', value_parser = clap::value_parser!(u32).range(1..=25_000))]
    connections: Option<u32>,
    /// Publishes a second (broadcast, unicast) [default: broadcast 100, unicast 1000]
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// How long to measure (not replay, which takes what it takes)
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Connections that publish (broadcast, unicast, ingest) [default: 1; unicast 4, ingest 16]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    publishers: Option<u16>,
    /// Events of one request (ingest)
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Bytes of an event's data
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(64..=500_000))]
    size: u32,
    /// Events that each reader has missed (replay)
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    backlog: u32,
    /// How long to wait for what is still outstanding
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    drain_seconds: u64,
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
    /// Allow a server that is not on this machine
    #[arg(long)]
    allow_remote: bool,
}

impl Args {
    fn connections(&self) -> u32 {
        self.connections.unwrap_or(match self.mode {
            Mode::Replay => 200,
            _ => 1_000,
        })
    }

    fn rate(&self) -> u32 {
        self.rate.unwrap_or(match self.mode {
            Mode::Unicast => 1_000,
            _ => 100,
        })
    }

    fn publishers(&self) -> u16 {
        self.publishers.unwrap_or(match self.mode {
            Mode::Unicast => 4,
            Mode::Ingest => 16,
            _ => 1,
        })
    }

    fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }
}

/// Runs the measurement. Exit code 1 where anything was lost, repeated, reordered or cut off.
pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    raise_descriptors(args.connections())?;
    let report = tokio::select! {
        report = measure(&args) => report?,
        _ = tokio::signal::ctrl_c() => return Err(Failure::failed("interrupted")),
    };
    if args.json {
        print(&format!("{}\n", report.to_json()?))?;
    } else {
        print(&report.to_table())?;
    }
    Ok(if report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn measure(args: &Args) -> Result<report::Report, Failure> {
    let progress = progress(args);
    progress.set_message("starting");
    let server = ServerArgs {
        url: args.url.clone(),
        token: args.token.clone(),
        ca: None,
    };
    let target = Target::open(&server, args.server_pid, args.allow_remote).await?;
    let report = modes::measure(args, &target, &progress).await;
    progress.finish_and_clear();
    report
}

/// A bar on standard error; nothing where that is no terminal.
fn progress(args: &Args) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(u64::from(args.connections())), target);
    if let Ok(style) = ProgressStyle::with_template("{msg:12} [{bar:40}] {pos}/{len} {elapsed}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// A server of our own inherits the limit.
fn raise_descriptors(connections: u32) -> Result<(), Failure> {
    let wanted = u64::from(connections) + 1_200;
    let limit = rlimit::increase_nofile_limit(wanted)
        .map_err(|e| Failure::failed(format_args!("cannot raise the limit of open files: {e}")))?;
    if limit < wanted {
        return Err(Failure::failed(format_args!(
            "{connections} connections need {wanted} open files; the limit is {limit} (ulimit -n)"
        )));
    }
    Ok(())
}
