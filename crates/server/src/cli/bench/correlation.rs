//! How well clusters agree with the truth: those that the library makes of a file, and those that a server made.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use tidings_alarms::correlate::{Rules, correlate};
use tidings_alarms::truth::{Partition, Truth, Verdict};
use tidings_client::{Client, Error};
use tokio::time::Instant;

use super::super::Failure;
use super::report::{Outcome, Table, count};
use super::{Args, Mode};

/// How often it is done; the quickest counts.
const REPEATS: u32 = 5;
/// How often a server is asked whether it has more.
const LOOK: Duration = Duration::from_millis(500);
/// How long clusters stay as they are before they are taken for done: they are published within
/// `correlation.flush_seconds` (5), piece by piece, and updated from then on.
const SETTLED: Duration = Duration::from_secs(6);

/// What was measured.
#[derive(Debug, Serialize)]
struct Figures {
    mode: &'static str,
    occurrences: u64,
    faults: u64,
    /// Entities with a relation.
    related_entities: u64,
    seconds: f64,
    occurrences_per_second: f64,
    #[serde(flatten)]
    library: Agreement,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<Served>,
}

/// Of one partition, with the truth.
#[derive(Debug, Clone, Copy, Serialize)]
struct Agreement {
    clusters: usize,
    adjusted_rand_index: f64,
    pairwise_precision: f64,
    pairwise_recall: f64,
    /// Where there are faults whose root can be judged.
    root_first: Option<f64>,
    roots_judged: usize,
}

/// What a server made of the same occurrences.
#[derive(Debug, Clone, Copy, Serialize)]
struct Served {
    #[serde(flatten)]
    agreement: Agreement,
    /// Occurrences that are in none of its clusters.
    missing: usize,
    /// The adjusted Rand index of its clusters and the library's: 1 where they are the same.
    agreement_with_library: f64,
}

impl From<Verdict> for Agreement {
    fn from(verdict: Verdict) -> Self {
        Self {
            clusters: verdict.clusters,
            adjusted_rand_index: verdict.score.ari,
            pairwise_precision: verdict.score.precision,
            pairwise_recall: verdict.score.recall,
            root_first: verdict.root_first(),
            roots_judged: verdict.roots_judged,
        }
    }
}

/// Measures, on a file that `--truth` names.
pub(super) async fn measure(args: &Args, progress: &ProgressBar) -> Result<Outcome, Failure> {
    let Some(path) = &args.truth else {
        return Err(Failure::usage("--truth is missing"));
    };
    progress.set_message("reading");
    let truth = read(path)?;
    progress.set_message("correlating");
    let (library, seconds) = of_library(&truth);
    let server = match &args.url {
        None => None,
        Some(_) => {
            progress.set_message("asking");
            let client = args.server().client()?;
            let found = of_server(&client, &truth, args.drain()).await?;
            Some(Served {
                agreement: truth.judge(&found).into(),
                missing: found.count_alone(),
                agreement_with_library: found.agreement(&library).ari,
            })
        }
    };
    let occurrences = truth.occurrences.len() as u64;
    let figures = Figures {
        mode: Mode::Correlation.as_str(),
        occurrences,
        faults: truth.faults_seen() as u64,
        related_entities: truth.topology.len() as u64,
        seconds,
        occurrences_per_second: count(occurrences) / seconds.max(1e-9),
        library: truth.judge(&library).into(),
        server,
    };
    figures.outcome()
}

fn read(path: &Path) -> Result<Truth, Failure> {
    let wrong =
        |e: &dyn std::fmt::Display| Failure::usage(format_args!("--truth {}: {e}", path.display()));
    let file = File::open(path).map_err(|e| wrong(&e))?;
    Truth::read(BufReader::new(file)).map_err(|e| wrong(&e))
}

/// The library's clusters, and how many seconds they take.
fn of_library(truth: &Truth) -> (Partition, f64) {
    let rules = Rules::default();
    let (mut clusters, mut best) = (Vec::new(), Duration::MAX);
    for _ in 0..REPEATS {
        let begun = Instant::now();
        clusters = correlate(&truth.occurrences, &truth.topology, &rules);
        best = best.min(begun.elapsed());
    }
    (
        Partition::of(clusters, truth.occurrences.len()),
        best.as_secs_f64(),
    )
}

/// A server's clusters, once all occurrences are in them and none changes any more, or nothing has for `patience`.
async fn of_server(
    client: &Client,
    truth: &Truth,
    patience: Duration,
) -> Result<Partition, Failure> {
    let events = truth.occurrences.iter().map(|o| o.event_id.as_str());
    let places: HashMap<&str, usize> = events.zip(0..).collect();
    let (mut last, mut moved) = (clusters(client, &places).await?, Instant::now());
    loop {
        tokio::time::sleep(LOOK).await;
        let now = match clusters(client, &places).await {
            Ok(now) => now,
            // A connection that was lost in between says nothing of the clusters.
            Err(e) if e.is_temporary() && moved.elapsed() <= patience.max(SETTLED) => continue,
            Err(e) => return Err(e.into()),
        };
        if now != last {
            (last, moved) = (now, Instant::now());
            continue;
        }
        let is_whole = last.count_alone() == 0;
        if moved.elapsed() > if is_whole { SETTLED } else { patience } {
            return Ok(last);
        }
    }
}

/// Reads a server's clusters, the newest first, until each occurrence is found.
async fn clusters(client: &Client, places: &HashMap<&str, usize>) -> Result<Partition, Error> {
    #[derive(Deserialize)]
    struct Page {
        clusters: Vec<Cluster>,
        cursor: Option<String>,
    }
    #[derive(Deserialize)]
    struct Cluster {
        event_ids: Vec<String>,
        root_cause_entity_id: Option<String>,
    }
    let (mut found, mut left) = (Partition::alone(places.len()), places.len());
    let mut after = None::<String>;
    loop {
        let mut query = vec![("limit", "1000")];
        query.extend(after.as_deref().map(|after| ("after", after)));
        let page = client.get("api/v1/clusters", &query).await?;
        let page: Page =
            serde_json::from_str(page.get()).map_err(|e| Error::Protocol(e.to_string()))?;
        for cluster in page.clusters {
            let ids = cluster.event_ids.iter();
            let members: Vec<usize> = ids
                .filter_map(|id| places.get(id.as_str()).copied())
                .collect();
            if !members.is_empty() {
                left = left.saturating_sub(members.len());
                found.join(members, cluster.root_cause_entity_id);
            }
        }
        after = page.cursor;
        if left == 0 || after.is_none() {
            return Ok(found);
        }
    }
}

impl Figures {
    fn outcome(&self) -> Result<Outcome, Failure> {
        Ok(Outcome {
            json: serde_json::to_string(self).map_err(Failure::failed)?,
            table: self.table(),
            is_clean: self.server.is_none_or(|server| server.missing == 0),
        })
    }

    fn table(&self) -> String {
        let mut table = Table::default();
        table.row("mode", Some(self.mode.into()));
        table.row("occurrences", Some(self.occurrences.to_string()));
        table.row("faults", Some(self.faults.to_string()));
        table.row(
            "entities with a relation",
            Some(self.related_entities.to_string()),
        );
        table.row("seconds", Some(format!("{:.4}", self.seconds)));
        let per_second = format!("{:.0}", self.occurrences_per_second);
        table.row("occurrences per second", Some(per_second));
        self.library.rows(&mut table);
        if let Some(server) = &self.server {
            table.0.push_str("\nwhat the server found\n");
            server.agreement.rows(&mut table);
            table.row(
                "occurrences in no cluster",
                Some(server.missing.to_string()),
            );
            let same = format!("{:.4}", server.agreement_with_library);
            table.row("agreement with the library", Some(same));
        }
        table.0
    }
}

impl Agreement {
    fn rows(&self, table: &mut Table) {
        let part = |value: f64| Some(format!("{value:.4}"));
        table.row("clusters", Some(self.clusters.to_string()));
        table.row("adjusted Rand index", part(self.adjusted_rand_index));
        table.row("pairwise precision", part(self.pairwise_precision));
        table.row("pairwise recall", part(self.pairwise_recall));
        let root = self
            .root_first
            .map(|part| format!("{part:.4} of {} faults", self.roots_judged));
        table.row("root cause first", root);
    }
}
