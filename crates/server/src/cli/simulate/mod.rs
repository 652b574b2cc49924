//! `tidings simulate`: realistic, seeded traffic, as the systems that notice things would send it.
//!
//! - `traffic`: makes events from a seed and knows nothing of sending; `serve --demo` uses it as well
//! - `mix`: sends traffic of several sources, or of all
//! - `alarms`: sends the alarms of a network whose faults are known, and writes them down as the truth

mod alarms;
mod mix;
pub(crate) mod traffic;

use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tidings_client::Client;
use tokio::time::Instant;

use self::traffic::Kind;
use super::{Failure, ServerArgs};

/// The most events of one request.
const BATCH: usize = 1_000;
/// How often what is due is sent.
const TICK: Duration = Duration::from_millis(100);

/// `tidings simulate`. Runs until it is interrupted, unless a time or a number is given; alarms alone end by themselves.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// What to simulate; all of it unless said otherwise. Alarms alone are a network whose faults are known
    #[arg(value_enum)]
    kinds: Vec<Kind>,
    /// Events a second [default: 10; alarms alone go by --speed]
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Seed: the same one makes the same events
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stop after this many seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// Stop after this many events
    #[arg(long)]
    count: Option<u64>,
    #[command(flatten)]
    alarms: alarms::Flags,
}

impl Args {
    /// Nothing but alarms is asked for.
    fn is_alarms_alone(&self) -> bool {
        !self.kinds.is_empty() && self.kinds.iter().all(|kind| *kind == Kind::Alarms)
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().map_err(|_| "not a number")?;
    if rate > 0.0 && rate <= 100_000.0 {
        Ok(rate)
    } else {
        Err("is more than 0 and at most 100000".into())
    }
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    if !args.is_alarms_alone()
        && let Some(flag) = args.alarms.given()
    {
        return Err(Failure::usage(format_args!(
            "{flag} is about alarms alone: tidings simulate alarms {flag} ..."
        )));
    }
    if args.alarms.is_dry_run() {
        alarms::print(&args)?;
        return Ok(ExitCode::SUCCESS);
    }
    let client = args.server.client()?;
    let progress = ProgressBar::new(args.count.unwrap_or(0));
    if let Ok(style) = ProgressStyle::with_template("{spinner} {pos} events in {elapsed} {msg}") {
        progress.set_style(style);
    }
    let sent = tokio::select! {
        sent = send(&args, &client, &progress) => sent?,
        _ = tokio::signal::ctrl_c() => progress.position(),
    };
    progress.finish_and_clear();
    super::print(&format!("{{\"sent\":{sent},\"seed\":{}}}\n", args.seed))?;
    Ok(ExitCode::SUCCESS)
}

/// Sends what is due to the end, and keeps the progress at what was taken. Says how much that was.
async fn send(args: &Args, client: &Client, progress: &ProgressBar) -> Result<u64, Failure> {
    if args.is_alarms_alone() {
        alarms::send(args, client, progress).await
    } else {
        mix::send(args, client, progress).await
    }
}

/// When sending began, and when it is to end.
#[derive(Debug, Clone, Copy)]
struct Time {
    begun: Instant,
    until: Option<Instant>,
}

impl Time {
    fn begin(seconds: Option<u64>) -> Self {
        let begun = Instant::now();
        let until = seconds.and_then(|seconds| begun.checked_add(Duration::from_secs(seconds)));
        Self { begun, until }
    }

    /// How long it has been going on, at most to its end.
    fn elapsed(&self) -> Duration {
        let now = Instant::now();
        self.until.map_or(now, |until| now.min(until)) - self.begun
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// How many events a rate makes in a time.
fn due(rate: f64, elapsed: Duration) -> u64 {
    // One nanosecond more than nothing, so that the first event does not wait.
    Duration::try_from_secs_f64(rate * elapsed.as_secs_f64() + 1.0)
        .map_or(u64::MAX, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_event_is_due_at_once() {
        assert_eq!(due(0.5, Duration::ZERO), 1);
        assert_eq!(due(0.5, Duration::from_secs(4)), 3);
        assert_eq!(due(10.0, Duration::from_secs(1)), 11);
    }
}
