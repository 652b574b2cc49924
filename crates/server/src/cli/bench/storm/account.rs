//! What became of the flood: what the server has stored, and what it has put into clusters.

use std::io;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tidings_client::Client;
use tokio::time::Instant;

use super::super::wire::Connection;
use super::flood::Flood;

/// How often it is looked whether correlation has caught up.
const LOOK: Duration = Duration::from_millis(250);
/// The same where only the clusters themselves can say.
const LOOK_AT_CLUSTERS: Duration = Duration::from_secs(2);
/// How many events wait to be correlated, in `/metrics`.
const LAG: &str = "tidings_worker_lag_events{worker=\"correlation\"}";

/// What the server has of the flood.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stored {
    /// Different alarms.
    pub(super) alarms: u64,
    /// How often they were raised.
    pub(super) raises: u64,
}

/// What is in clusters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Clustered {
    pub(super) clusters: u64,
    /// Occurrences in them.
    pub(super) occurrences: u64,
}

#[derive(Deserialize)]
struct Alarms {
    alarms: Vec<Alarm>,
    cursor: Option<String>,
}

#[derive(Deserialize)]
struct Alarm {
    entity_id: String,
    raise_count: u64,
}

#[derive(Deserialize)]
struct Clusters {
    clusters: Vec<Cluster>,
    cursor: Option<String>,
}

#[derive(Deserialize)]
struct Cluster {
    alarm_count: u64,
    entity_ids: Vec<String>,
}

/// Counts what is stored.
pub(super) async fn stored(client: &Client, flood: &Flood) -> io::Result<Stored> {
    let (mut sum, mut after) = (Stored::default(), None);
    loop {
        let page: Alarms = page(client, "api/v1/alarms", after.as_deref()).await?;
        for alarm in page.alarms.iter().filter(|a| flood.is_own(&a.entity_id)) {
            sum.alarms += 1;
            sum.raises += alarm.raise_count;
        }
        if page.cursor.is_none() {
            return Ok(sum);
        }
        after = page.cursor;
    }
}

/// Counts what is in clusters, the newest first, until `most` occurrences are found.
async fn clustered(client: &Client, flood: &Flood, most: u64) -> io::Result<Clustered> {
    let (mut sum, mut after) = (Clustered::default(), None);
    loop {
        let page: Clusters = page(client, "api/v1/clusters", after.as_deref()).await?;
        for cluster in &page.clusters {
            if cluster.entity_ids.iter().any(|id| flood.is_own(id)) {
                sum.clusters += 1;
                sum.occurrences += cluster.alarm_count;
            }
        }
        if page.cursor.is_none() || sum.occurrences >= most {
            return Ok(sum);
        }
        after = page.cursor;
    }
}

async fn page<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    after: Option<&str>,
) -> io::Result<T> {
    let mut query = vec![("limit", "1000")];
    query.extend(after.map(|after| ("after", after)));
    let page = client.get(path, &query).await.map_err(io::Error::other)?;
    Ok(serde_json::from_str(page.get())?)
}

/// Waits until all occurrences are in clusters, or until nothing has moved for `patience`. `left` is told how many are
/// not, where that is known. Clusters are read, which costs the server something, only where no event waits any more.
pub(super) async fn catch_up(
    client: &Client,
    metrics: &mut Connection,
    flood: &Flood,
    patience: Duration,
    mut left: impl FnMut(u64),
) -> io::Result<Clustered> {
    let most = flood.len() as u64;
    let (mut last, mut moved) = ((None, Clustered::default()), Instant::now());
    loop {
        let lag = lag(metrics).await?;
        let found = match lag {
            Some(waiting) if waiting > 0 => last.1,
            _ => clustered(client, flood, most).await?,
        };
        left(
            lag.filter(|waiting| *waiting > 0)
                .unwrap_or(most.saturating_sub(found.occurrences)),
        );
        if (lag, found) != last {
            (last, moved) = ((lag, found), Instant::now());
        }
        if found.occurrences >= most || moved.elapsed() > patience {
            return Ok(found);
        }
        tokio::time::sleep(if lag.is_some() {
            LOOK
        } else {
            LOOK_AT_CLUSTERS
        })
        .await;
    }
}

/// How many events wait for correlation; none where the server does not say, as one whose metrics are elsewhere.
async fn lag(metrics: &mut Connection) -> io::Result<Option<u64>> {
    let answer = metrics.get("/metrics").await?;
    let text = String::from_utf8_lossy(&answer.body);
    let line = text.lines().find_map(|line| line.strip_prefix(LAG));
    let whole = line.and_then(|value| value.trim().split('.').next());
    Ok(whole.and_then(|value| value.parse().ok()))
}
