//! Alarms alone: a network whose faults are known, and what it raises. Equal flags make equal alarms.
//!
//! The network's own time may go faster than the clock's; it ends when the sending does, so that no alarm lies ahead.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidings_alarms::simulate::{Alarm, FAULTS, Flaws, Load, Node, Run, Scenario};
use tidings_alarms::truth;
use tidings_client::{Client, Error};
use tidings_core::clock::{Clock, Timestamp};

use super::{Args, BATCH, TICK, Time};
use crate::cli::{Failure, warn};

/// How much faster than the clock the network's time goes, where nothing is said: an hour a minute.
const SPEED: f64 = 60.0;
/// When the network's time begins where nothing is sent: 2026-01-01T00:00:00Z.
const DRY_START: Timestamp = Timestamp::from_secs(1_767_225_600);

/// What is about alarms alone.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Alarms alone")]
pub(super) struct Flags {
    /// Time that 150 faults come in: sparse 24 hours, busy 4 hours, storm 30 minutes [default: busy]
    #[arg(long, value_name = "LOAD", value_parser = load())]
    load: Option<Load>,
    /// Faults, which come as close upon each other however many they are [default: 150]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    faults: Option<u32>,
    /// Share of the relations that nobody has entered, from 0 to 1 [default: 0]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    missing: Option<f64>,
    /// Share of the relations that name another parent than the true one [default: 0]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    wrong: Option<f64>,
    /// Share of the alarms that arrive up to two minutes late [default: 0]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    late: Option<f64>,
    /// How many times faster than the clock the network's time goes, at least 1 [default: 60]
    #[arg(long, value_name = "TIMES", value_parser = speed, conflicts_with = "rate")]
    speed: Option<f64>,
    /// When the network's time begins, RFC 3339 [default: so that it ends with the sending; with --dry-run
    /// 2026-01-01T00:00:00Z]
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    start: Option<Timestamp>,
    /// File to write which alarms truly belong together to, for `tidings bench correlation`
    #[arg(long, value_name = "FILE")]
    truth: Option<PathBuf>,
    /// Print the alarms, one JSON object a line, and send nothing
    #[arg(long, conflicts_with_all = ["url", "token", "ca", "rate", "seconds", "speed"])]
    dry_run: bool,
}

fn load() -> impl clap::builder::TypedValueParser<Value = Load> {
    PossibleValuesParser::new(Load::ALL.map(Load::as_str)).try_map(|word| word.parse::<Load>())
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().map_err(|_| "not a number")?;
    if (0.0..=1.0).contains(&share) {
        Ok(share)
    } else {
        Err("is from 0 to 1".into())
    }
}

fn speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_| "not a number")?;
    if (1.0..=1e9).contains(&speed) {
        Ok(speed)
    } else {
        Err("is from 1 to 1000000000".into())
    }
}

impl Flags {
    /// One of them that was given.
    pub(super) fn given(&self) -> Option<&'static str> {
        let given = [
            (self.load.is_some(), "--load"),
            (self.faults.is_some(), "--faults"),
            (self.missing.is_some(), "--missing"),
            (self.wrong.is_some(), "--wrong"),
            (self.late.is_some(), "--late"),
            (self.speed.is_some(), "--speed"),
            (self.start.is_some(), "--start"),
            (self.truth.is_some(), "--truth"),
            (self.dry_run, "--dry-run"),
        ];
        given
            .into_iter()
            .find_map(|(is_given, name)| is_given.then_some(name))
    }

    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run
    }
}

/// The alarms that are asked for, and what they are made of.
struct Plan {
    scenario: Scenario,
    run: Run,
    pace: Pace,
}

/// When an alarm is due.
#[derive(Debug, Clone, Copy)]
enum Pace {
    /// So many a second.
    Rate(f64),
    /// As it arrives, so many times faster.
    Speed(f64),
}

impl Plan {
    fn of(args: &Args) -> Self {
        let flags = &args.alarms;
        let scenario = Scenario::new(args.seed, flags.load.unwrap_or(Load::Busy));
        let mut scenario = Scenario {
            flaws: Flaws {
                missing: flags.missing.unwrap_or(0.0),
                wrong: flags.wrong.unwrap_or(0.0),
                late: flags.late.unwrap_or(0.0),
            },
            ..scenario.with_faults(flags.faults.unwrap_or(FAULTS))
        };
        let pace = match args.rate {
            Some(rate) => Pace::Rate(rate),
            None => Pace::Speed(flags.speed.unwrap_or(SPEED)),
        };
        let mut run = scenario.run();
        // Faults come by chance, so that only the run itself says how long it is.
        let last = run.alarms.last().map_or(scenario.start, |a| a.arrives_at);
        let length = last.since(scenario.start);
        scenario.start = match (flags.start, pace) {
            (Some(start), _) => start,
            (None, _) if flags.dry_run => DRY_START,
            (None, Pace::Rate(_)) => Clock::System.now().minus(length),
            (None, Pace::Speed(speed)) => {
                let end = Clock::System.now().plus(length.div_f64(speed));
                end.minus(length)
            }
        };
        run = scenario.run();
        run.alarms.truncate(most(args));
        Self {
            scenario,
            run,
            pace,
        }
    }

    /// What is due by then and has not been made, as much as one request takes.
    fn batch(&self, made: usize, elapsed: Duration) -> &[Alarm] {
        let left = self.run.alarms.get(made..).unwrap_or_default();
        let is_due = |(n, alarm): &(usize, &Alarm)| self.due(made + n, alarm) <= elapsed;
        let due = left.iter().enumerate().take(BATCH).take_while(is_due);
        &left[..due.count()]
    }

    /// How long after the first request the n-th alarm is sent.
    fn due(&self, n: usize, alarm: &Alarm) -> Duration {
        match self.pace {
            #[expect(clippy::cast_precision_loss, reason = "a count of alarms")]
            Pace::Rate(rate) => Duration::from_secs_f64(n as f64 / rate),
            Pace::Speed(speed) => alarm.arrives_at.since(self.scenario.start).div_f64(speed),
        }
    }
}

fn most(args: &Args) -> usize {
    let count = args
        .count
        .map(|count| usize::try_from(count).unwrap_or(usize::MAX));
    count.unwrap_or(usize::MAX)
}

/// Prints the alarms, under the ids that the generator gives them.
pub(super) fn print(args: &Args) -> Result<(), Failure> {
    let plan = Plan::of(args);
    let mut truth = TruthFile::create(args.alarms.truth.as_deref(), &plan)?;
    let mut out = String::new();
    let mut ids = Vec::with_capacity(plan.run.alarms.len());
    for alarm in &plan.run.alarms {
        out.push_str(&alarm.body().to_string());
        out.push('\n');
        ids.push(alarm.occurrence.event_id.clone());
    }
    truth.write(&plan.run.alarms, &ids)?;
    crate::cli::print(&out)
}

/// Stores the network and sends its alarms as they are due. The truth has those that the server took.
pub(super) async fn send(
    args: &Args,
    client: &Client,
    progress: &ProgressBar,
) -> Result<u64, Failure> {
    let plan = Plan::of(args);
    let mut truth = TruthFile::create(args.alarms.truth.as_deref(), &plan)?;
    let nodes: Vec<Value> = plan.run.nodes.iter().map(Node::body).collect();
    put_entities(client, &nodes).await?;
    let (time, all) = (Time::begin(args.seconds), plan.run.alarms.len());
    progress.set_length(all as u64);
    let (mut made, mut sent) = (0, 0);
    loop {
        let batch = plan.batch(made, time.elapsed());
        made += batch.len();
        let bodies: Vec<Value> = batch.iter().map(Alarm::body).collect();
        match ingest(client, &bodies).await {
            Ok(ids) => {
                truth.write(batch, &ids)?;
                sent += batch.len() as u64;
            }
            // Sources go on where the server is away for a while.
            Err(e) if e.is_temporary() && sent > 0 => {
                warn(&format!("{} alarms not sent: {e}", batch.len()));
            }
            Err(e) => return Err(e.into()),
        }
        progress.set_position(sent);
        if made == all || time.is_over() {
            return Ok(sent);
        }
        if batch.len() < BATCH {
            tokio::time::sleep(TICK).await;
        }
    }
}

/// Stores entities in place of those with the same ids.
pub(super) async fn put_entities(client: &Client, entities: &[Value]) -> Result<(), Error> {
    let body = json(&entities)?;
    let sent = client.post_repeatable("api/v1/entities/bulk", "application/json", body);
    sent.await.map(drop)
}

/// Sends alarms, all or none. Returns the id that the server knows each by, in order.
pub(super) async fn ingest(client: &Client, alarms: &[Value]) -> Result<Vec<String>, Error> {
    #[derive(Deserialize)]
    struct Answer {
        event_ids: Vec<String>,
    }
    if alarms.is_empty() {
        return Ok(Vec::new());
    }
    let sent = client.post_repeatable(
        "api/v1/alarms/ingest/batch",
        "application/json",
        json(&alarms)?,
    );
    let answer: Answer =
        serde_json::from_str(sent.await?.get()).map_err(|e| Error::Protocol(e.to_string()))?;
    if answer.event_ids.len() != alarms.len() {
        return Err(Error::Protocol("not one event_id for each alarm".into()));
    }
    Ok(answer.event_ids)
}

fn json(value: &impl Serialize) -> Result<bytes::Bytes, Error> {
    let json = serde_json::to_vec(value).map_err(|e| Error::Invalid(e.to_string()))?;
    Ok(json.into())
}

/// Where the truth goes, if anywhere: at all times, it has what the server has taken.
struct TruthFile(Option<(PathBuf, BufWriter<File>)>);

impl TruthFile {
    fn create(path: Option<&Path>, plan: &Plan) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Ok(Self(None));
        };
        let file = File::create(path);
        let file =
            file.map_err(|e| Failure::usage(format_args!("--truth {}: {e}", path.display())))?;
        let mut made = Self(Some((path.to_owned(), BufWriter::new(file))));
        made.with(|out| truth::write_head(out, &plan.scenario, &plan.run))?;
        Ok(made)
    }

    fn write(&mut self, alarms: &[Alarm], event_ids: &[String]) -> Result<(), Failure> {
        self.with(|out| {
            let mut all = alarms.iter().zip(event_ids);
            all.try_for_each(|(alarm, id)| truth::write_occurrence(out, alarm, id))
        })
    }

    fn with(
        &mut self,
        write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
    ) -> Result<(), Failure> {
        let Some((path, out)) = &mut self.0 else {
            return Ok(());
        };
        let written = write(out).and_then(|()| out.flush());
        written.map_err(|e| Failure::failed(format_args!("--truth {}: {e}", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &str) -> Args {
        let line = format!("simulate alarms {words}");
        Line::try_parse_from(line.split_ascii_whitespace())
            .unwrap()
            .args
    }

    #[test]
    fn the_networks_time_ends_with_the_sending() {
        for words in [
            "--load sparse",
            "--load storm --speed 1",
            "--rate 50",
            "--load storm --speed 1000 --faults 7",
        ] {
            let (before, plan) = (Clock::System.now(), Plan::of(&args(words)));
            let now = Clock::System.now();
            let alarms = &plan.run.alarms;
            for (n, alarm) in alarms.iter().enumerate() {
                let sent_at = now.plus(plan.due(n, alarm));
                assert!(
                    alarm.arrives_at <= sent_at.plus(Duration::from_millis(1)),
                    "{words}: {n}"
                );
            }
            let (n, last) = (alarms.len() - 1, alarms.last().unwrap());
            if matches!(plan.pace, Pace::Speed(_)) {
                assert!(
                    before.plus(plan.due(n, last))
                        <= last.arrives_at.plus(Duration::from_millis(1)),
                    "{words}"
                );
            }
        }
    }

    #[test]
    fn flags_make_the_run() {
        let plan = |words: &str| Plan::of(&args(words));
        let dry = plan("--dry-run --seed 7 --load storm --missing 0.5");
        assert_eq!(dry.scenario.start, DRY_START);
        assert_eq!(
            (dry.scenario.seed, dry.scenario.span),
            (7, Load::Storm.span())
        );
        assert!(dry.run.nodes.iter().filter(|n| n.parent.is_none()).count() > 400);
        let few = plan("--dry-run --faults 15 --count 3 --start 2026-03-01T12:00:00Z");
        assert_eq!((few.run.faults, few.run.alarms.len()), (15, 3));
        assert_eq!(
            few.scenario.start,
            Timestamp::parse("2026-03-01T12:00:00Z").unwrap()
        );
        assert_eq!(args("--late 0.1").alarms.given(), Some("--late"));
        assert_eq!(args("--seed 3").alarms.given(), None);
        for bad in [
            "--load calm",
            "--missing 1.5",
            "--missing x",
            "--speed 0.5",
            "--faults 0",
            "--start now",
            "--speed 2 --rate 3",
            "--dry-run --url http://h",
            "--rate 0",
        ] {
            let line = format!("simulate alarms {bad}");
            assert!(Line::try_parse_from(line.split(' ')).is_err(), "{bad}");
        }
    }
}
