//! `tidings simulate`: publishes realistic, seeded traffic.
//!
//! [`traffic`] makes events from a seed and knows nothing of sending; `serve --demo` uses it as well.

pub(crate) mod traffic;

use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tidings_client::{Client, NewEvent};
use tidings_core::clock::Clock;
use tokio::time::Instant;

use self::traffic::{Kind, Traffic};
use super::{Failure, ServerArgs, warn};

/// The most events of one request.
const BATCH: u64 = 1_000;
/// How often what is due is sent.
const TICK: Duration = Duration::from_millis(100);

/// `tidings simulate`. Runs until it is interrupted, unless a time or a number is given.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// What to simulate; all of it unless said otherwise
    #[arg(value_enum)]
    kinds: Vec<Kind>,
    /// Events a second
    #[arg(long, default_value_t = 10.0)]
    rate: f64,
    /// Seed: the same one makes the same events
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stop after this many seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// Stop after this many events
    #[arg(long)]
    count: Option<u64>,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    if !(args.rate > 0.0 && args.rate <= 100_000.0) {
        return Err(Failure::usage("--rate is more than 0 and at most 100000"));
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

/// Sends what is due, tick by tick, to the end.
async fn send(args: &Args, client: &Client, progress: &ProgressBar) -> Result<u64, Failure> {
    let mut traffic = Traffic::of(args.seed, &args.kinds);
    let run = fastrand::u64(..);
    let begun = Instant::now();
    let until = args
        .seconds
        .map(|seconds| begun + Duration::from_secs(seconds));
    let most = args.count.unwrap_or(u64::MAX);
    let (mut made, mut sent) = (0, 0);
    loop {
        let now = Instant::now().min(until.unwrap_or_else(Instant::now));
        let due = due(args.rate, now - begun).min(most);
        while made < due {
            let count = (due - made).min(BATCH);
            let events = (0..count)
                .map(|_| {
                    let event = traffic.next(Clock::System.now());
                    NewEvent::new(event.topic, event.kind, &event.data)
                })
                .collect::<Result<Vec<_>, _>>()?;
            let key = format!("simulate-{run:016x}-{made}");
            made += count;
            match client.publish_batch(&events, Some(&key)).await {
                Ok(_) => sent += count,
                // The traffic goes on where the server is away for a while, as real sources do.
                Err(e) if e.is_temporary() && sent > 0 => {
                    warn(&format!("{count} events not sent: {e}"));
                }
                Err(e) => return Err(e.into()),
            }
            progress.set_position(sent);
        }
        if made >= most || until.is_some_and(|until| Instant::now() >= until) {
            return Ok(sent);
        }
        tokio::time::sleep(TICK).await;
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
    use super::super::bench::toy::{Fault, Toy};
    use super::*;

    fn args(toy: &Toy) -> Args {
        let server = ServerArgs {
            url: Some(toy.url.clone()),
            token: Some("tok".into()),
            ca: None,
        };
        Args {
            server,
            kinds: Vec::new(),
            rate: 1_000.0,
            seed: 3,
            seconds: None,
            count: None,
        }
    }

    async fn sent(args: &Args) -> Result<u64, Failure> {
        let client = args.server.client()?;
        send(args, &client, &ProgressBar::hidden()).await
    }

    #[tokio::test]
    async fn it_stops_at_a_number_or_a_time() {
        let toy = Toy::start(Fault::None).await;
        let counted = Args {
            count: Some(250),
            ..args(&toy)
        };
        assert_eq!(sent(&counted).await.unwrap(), 250);
        assert_eq!(toy.events().len(), 250);
        let timed = Args {
            seconds: Some(1),
            kinds: vec![Kind::Devices],
            ..args(&toy)
        };
        let count = sent(&timed).await.unwrap();
        // How many fit into the second is the machine's business; that they are no more than the rate allows is ours.
        assert!((1..=1_001).contains(&count), "{count}");
        let is_device =
            |e: &serde_json::Value| e["topic"].as_str().unwrap().starts_with(['d', 's']);
        assert!(toy.events()[250..].iter().all(is_device));
    }

    #[tokio::test]
    async fn a_refusal_ends_it() {
        let toy = Toy::start(Fault::Refuses).await;
        assert_eq!(sent(&args(&toy)).await.unwrap_err().code, 1);
    }

    #[test]
    fn the_first_event_is_due_at_once() {
        assert_eq!(due(0.5, Duration::ZERO), 1);
        assert_eq!(due(0.5, Duration::from_secs(4)), 3);
        assert_eq!(due(10.0, Duration::from_secs(1)), 11);
    }
}
