//! Who acknowledges meanwhile: one alarm after the other.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Deserialize;
use tidings_client::Client;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::super::publishers::micros;
use super::super::readers::histogram;
use super::super::wire::Connection;
use super::flood::Flood;

/// The time from one acknowledgement to the next, where the server is quick enough.
const PACE: Duration = Duration::from_millis(50);
/// Alarms that are looked up at once.
const LOOK_UP: &str = "200";

/// What came of it.
#[derive(Debug)]
pub(super) struct Operated {
    /// From asking to the answer, in microseconds, of those that were answered 200.
    pub(super) answers: Histogram<u64>,
    /// Acknowledgements that were answered otherwise.
    pub(super) failed: u64,
}

/// Acknowledges the newest alarms of the flood until it is told to stop.
pub(super) async fn acknowledge(
    mut connection: Connection,
    client: Client,
    flood: Arc<Flood>,
    stop: CancellationToken,
) -> io::Result<Operated> {
    let mut operated = Operated {
        answers: histogram()?,
        failed: 0,
    };
    let (mut known, mut ticks) = (Vec::new(), tokio::time::interval(PACE));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(operated),
            _ = ticks.tick() => {}
        }
        if known.is_empty() {
            known = look_up(&client, &flood).await?;
        }
        let Some(id) = known.pop() else { continue };
        let begun = Instant::now();
        let answer = connection
            .post(&format!("/api/v1/alarms/{id}/acknowledge"), "{}")
            .await?;
        if answer.status == 200 {
            operated.answers.saturating_record(micros(begun.elapsed()));
        } else {
            operated.failed += 1;
        }
    }
}

/// Ids of alarms that nobody has acknowledged, the oldest of them first.
async fn look_up(client: &Client, flood: &Flood) -> io::Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Page {
        alarms: Vec<Alarm>,
    }
    #[derive(Deserialize)]
    struct Alarm {
        id: String,
        entity_id: String,
    }
    let query = [
        ("condition", "raised"),
        ("operator_state", "none"),
        ("limit", LOOK_UP),
    ];
    let page = client
        .get("api/v1/alarms", &query)
        .await
        .map_err(io::Error::other)?;
    let page: Page = serde_json::from_str(page.get())?;
    let own = page
        .alarms
        .into_iter()
        .filter(|alarm| flood.is_own(&alarm.entity_id));
    Ok(own.map(|alarm| alarm.id).collect())
}
