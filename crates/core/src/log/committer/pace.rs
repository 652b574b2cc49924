//! How many jobs one commit takes, and how long it waits for them.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::job::Job;

/// Jobs that one transaction takes at most.
const BATCH_JOBS: usize = 4_096;
/// Events after which a transaction takes no further job.
const BATCH_EVENTS: usize = 20_000;
/// The longest that a commit waits for those who are about to come back from the last one. It also never waits longer
/// than the last commit took.
const LINGER: Duration = Duration::from_micros(500);
/// Commits between two tries whether waiting for more brings more.
const PROBE: u32 = 32;
/// Turns that a commit leaves to others without anything new coming in, before it goes ahead.
const YIELDS: u32 = 3;

/// How many a commit waits for. Publishers who wait for their answers come back together: a closed loop of sixteen is
/// served best by one sync for all, but falls into two halves that take turns, each half of a batch behind the other. So
/// now and then a commit waits for as many as the last two had together; where they come, that is the number from then on,
/// and where they do not, nobody waits for them again.
#[derive(Debug, Default)]
pub(super) struct Pace {
    wanted: usize,
    last: usize,
    commits: u32,
    took: Duration,
}

impl Pace {
    pub(super) fn learn(&mut self, count: usize, took: Duration) {
        self.commits += 1;
        self.took = took;
        self.wanted = if self.commits >= PROBE {
            self.commits = 0;
            count + self.last
        } else if count < self.wanted {
            count
        } else {
            self.wanted.max(1)
        };
        self.last = count;
    }

    fn linger(&self) -> Duration {
        LINGER.min(self.took)
    }
}

/// Takes what waits, and for a moment those who are about to come back from the last commit.
///
/// Whoever is ready to run goes first: where the processor is what everybody waits for, a commit now would only take it
/// from the requests that could share the commit.
pub(super) fn gather(jobs: &Receiver<Job>, first: Job, pace: &Pace) -> Vec<Job> {
    let mut batch = vec![first];
    let mut events = weight(&batch[0]);
    let started = Instant::now();
    let mut yields = 0;
    while batch.len() < BATCH_JOBS && events < BATCH_EVENTS {
        let next = match jobs.try_recv() {
            Ok(job) => Ok(job),
            Err(_) if yields < YIELDS && started.elapsed() < LINGER => {
                yields += 1;
                thread::yield_now();
                continue;
            }
            Err(_) if batch.len() >= pace.wanted => break,
            Err(_) => jobs.recv_timeout(pace.linger().saturating_sub(started.elapsed())),
        };
        match next {
            Ok(job) => {
                yields = 0;
                events += weight(&job);
                batch.push(job);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    batch
}

fn weight(job: &Job) -> usize {
    match job {
        Job::Publish(job) => job.events.len(),
        _ => 1,
    }
}
