//! Traffic of several sources: alarms go in by their module, everything else as events.

use indicatif::ProgressBar;
use tidings_client::{Client, Error, NewEvent};
use tidings_core::clock::Clock;

use super::alarms::{ingest, put_entities};
use super::traffic::{Kind, Simulated, Traffic, entities};
use super::{Args, BATCH, TICK, Time, due};
use crate::cli::{Failure, warn};

/// Events a second where nothing is said.
const RATE: f64 = 10.0;

/// Sends what is due, tick by tick, to the end.
pub(super) async fn send(
    args: &Args,
    client: &Client,
    progress: &ProgressBar,
) -> Result<u64, Failure> {
    if args.kinds.is_empty() || args.kinds.contains(&Kind::Alarms) {
        put_entities(client, &entities()).await?;
    }
    let mut traffic = Traffic::of(args.seed, &args.kinds);
    let (run, time) = (fastrand::u64(..), Time::begin(args.seconds));
    let (rate, most) = (args.rate.unwrap_or(RATE), args.count.unwrap_or(u64::MAX));
    let (mut made, mut sent) = (0, 0);
    loop {
        let due = due(rate, time.elapsed()).min(most);
        while made < due {
            let count = (due - made).min(BATCH as u64);
            let (alarms, rest): (Vec<_>, Vec<_>) = (0..count)
                .map(|_| next(&mut traffic))
                .partition(|simulated| simulated.topic == ALARMS);
            let key = format!("simulate-{run:016x}-{made}");
            made += count;
            let (alarms_sent, rest_sent) = (
                raise(client, &alarms).await,
                publish(client, &rest, &key).await,
            );
            for part in [alarms_sent, rest_sent] {
                match part {
                    Ok(count) => sent += count,
                    // The traffic goes on where the server is away for a while, as real sources do.
                    Err(e) if e.is_temporary() && sent > 0 => warn(&format!("not sent: {e}")),
                    Err(e) => return Err(e.into()),
                }
            }
            progress.set_position(sent);
        }
        if made >= most || time.is_over() {
            return Ok(sent);
        }
        tokio::time::sleep(TICK).await;
    }
}

/// Where alarms are told of.
const ALARMS: &str = "alarms";

/// What happens next. What the server makes of alarms by itself is passed over.
fn next(traffic: &mut Traffic) -> Simulated {
    loop {
        let simulated = traffic.next(Clock::System.now());
        if simulated.topic != ALARMS || simulated.alarm().is_some() {
            return simulated;
        }
    }
}

async fn raise(client: &Client, alarms: &[Simulated]) -> Result<u64, Error> {
    let alarms: Vec<_> = alarms.iter().filter_map(Simulated::alarm).collect();
    Ok(ingest(client, &alarms).await?.len() as u64)
}

async fn publish(client: &Client, events: &[Simulated], key: &str) -> Result<u64, Error> {
    if events.is_empty() {
        return Ok(0);
    }
    let events = events
        .iter()
        .map(|event| NewEvent::new(&event.topic, event.kind, &event.data))
        .collect::<Result<Vec<_>, _>>()?;
    client.publish_batch(&events, Some(key)).await?;
    Ok(events.len() as u64)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::bench::toy::{Fault, Toy};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    async fn sent(toy: &Toy, words: &str) -> Result<u64, Failure> {
        let line = format!(
            "simulate {words} --rate 1000 --seed 3 --url {} --token tok",
            toy.url
        );
        let Line { args } = Line::try_parse_from(line.split(' ')).unwrap();
        let client = args.server.client()?;
        send(&args, &client, &ProgressBar::hidden()).await
    }

    #[tokio::test]
    async fn it_stops_at_a_number_or_a_time() {
        let toy = Toy::start(Fault::None).await;
        let words = "alerts notifications devices --count 250";
        assert_eq!(sent(&toy, words).await.unwrap(), 250);
        assert_eq!(toy.events().len(), 250);
        let count = sent(&toy, "devices --seconds 1").await.unwrap();
        // How many fit into the second is the machine's business; that they are no more than the rate allows is ours.
        assert!((1..=1_001).contains(&count), "{count}");
        let is_device =
            |e: &serde_json::Value| e["topic"].as_str().unwrap().starts_with(['d', 's']);
        assert!(toy.events()[250..].iter().all(is_device));
    }

    #[tokio::test]
    async fn a_refusal_ends_it() {
        let toy = Toy::start(Fault::Refuses).await;
        assert_eq!(sent(&toy, "devices").await.unwrap_err().code, 1);
    }
}
