//! `tidings bench`: measures a server, one that runs or one that it starts for itself on a temporary folder.
//!
//! - `target`: which server, and what the system says about its process
//! - `wire`: HTTP/1.1 on a bare socket, so that thousands of readers cost little here
//! - `mark`: what a measured event carries, and the account of what each reader got
//! - `readers`, `publishers`: the two ends of the measurement
//! - `modes`: what is done in which order
//! - `storm`: a flood of alarms, while an operator acknowledges and a screen watches
//! - `correlation`: how well clusters agree with the truth; needs no server
//! - `report`: the figures, as a table and as JSON
//!
//! Latencies are from just before the publish is written to the moment that the event's last byte was read, on one
//! clock: the bench is both ends. Server and bench share the machine, so absolute figures are those of both.

mod correlation;
mod mark;
mod modes;
mod publishers;
mod readers;
mod report;
mod storm;
mod target;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) mod toy;
mod wire;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use self::report::Outcome;
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
    /// A flood of alarms, while an operator acknowledges and a screen watches: is any lost, how long does all of it take
    Alarms,
    /// Clusters against the truth that `simulate alarms` wrote: adjusted Rand index, precision, recall, roots, time
    Correlation,
}

impl Mode {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Broadcast => "broadcast",
            Self::Unicast => "unicast",
            Self::Idle => "idle",
            Self::Ingest => "ingest",
            Self::Replay => "replay",
            Self::Alarms => "alarms",
            Self::Correlation => "correlation",
        }
    }
}

/// `tidings bench`. Without --url it starts a server of its own; correlation needs none.
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
    /// Open streams (broadcast, unicast, idle, replay) [default: 1000; replay 200]
    #[arg(long, short = 'n', value_parser = clap::value_parser!(u32).range(1..=25_000))]
    connections: Option<u32>,
    /// Publishes a second (broadcast, unicast) [default: broadcast 100, unicast 1000]
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// How long to measure (not replay and correlation, which take what they take) [default: 5; alarms 60]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: Option<u64>,
    /// Connections that publish (broadcast, unicast, ingest, alarms) [default: 1; unicast and alarms 4, ingest 16]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    publishers: Option<u16>,
    /// Events of one request (ingest, alarms) [default: 1; alarms 200]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: Option<u32>,
    /// Bytes of an event's data
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(64..=500_000))]
    size: u32,
    /// Events that each reader has missed (replay)
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    backlog: u32,
    /// Alarms in all (alarms)
    #[arg(long, value_name = "COUNT", default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..=5_000_000))]
    alarms: u32,
    /// Networks that raise them, 988 entities each (alarms)
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    networks: u32,
    /// Do not tell the server what depends on what (alarms)
    #[arg(long)]
    unknown_topology: bool,
    /// File that says which alarms truly belong together (correlation); with --url, what that server found is judged too
    #[arg(long, value_name = "FILE", required_if_eq("mode", "correlation"))]
    truth: Option<PathBuf>,
    /// How long to wait while nothing of what is outstanding comes [default: 10; alarms 60]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=600))]
    drain_seconds: Option<u64>,
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
    /// Allow a server that is not on this machine
    #[arg(long)]
    allow_remote: bool,
}

impl Args {
    fn connections(&self) -> u32 {
        match self.mode {
            // A screen; nothing that holds a stream.
            Mode::Alarms | Mode::Correlation => 1,
            Mode::Replay => self.connections.unwrap_or(200),
            _ => self.connections.unwrap_or(1_000),
        }
    }

    fn rate(&self) -> u32 {
        self.rate.unwrap_or(match self.mode {
            Mode::Unicast => 1_000,
            _ => 100,
        })
    }

    fn publishers(&self) -> u16 {
        self.publishers.unwrap_or(match self.mode {
            Mode::Unicast | Mode::Alarms => 4,
            Mode::Ingest => 16,
            _ => 1,
        })
    }

    fn seconds(&self) -> u64 {
        self.seconds.unwrap_or(match self.mode {
            Mode::Alarms => 60,
            _ => 5,
        })
    }

    fn batch(&self) -> u32 {
        self.batch.unwrap_or(match self.mode {
            Mode::Alarms => 200,
            _ => 1,
        })
    }

    fn drain(&self) -> Duration {
        let seconds = self.drain_seconds.unwrap_or(match self.mode {
            Mode::Alarms => 60,
            _ => 10,
        });
        Duration::from_secs(seconds)
    }

    /// The server that is named, if one is.
    fn server(&self) -> ServerArgs {
        ServerArgs {
            url: self.url.clone(),
            token: self.token.clone(),
            ca: None,
        }
    }
}

/// Runs the measurement. Exit code 1 where anything was lost, repeated, reordered or cut off.
pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    raise_descriptors(args.connections())?;
    let outcome = tokio::select! {
        outcome = measure(&args) => outcome?,
        _ = tokio::signal::ctrl_c() => return Err(Failure::failed("interrupted")),
    };
    if args.json {
        print(&format!("{}\n", outcome.json))?;
    } else {
        print(&outcome.table)?;
    }
    Ok(if outcome.is_clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn measure(args: &Args) -> Result<Outcome, Failure> {
    let progress = progress(args);
    progress.set_message("starting");
    let outcome = modes::measure(args, &progress).await;
    progress.finish_and_clear();
    outcome
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
