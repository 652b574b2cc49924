//! Network alarms: what a network operations centre keeps, correlates and watches.
//!
//! Rules are pure; what is stored is written together with its events in one [`tidings_core::log::Log::write`].
//!
//! - `severity`, `topology`, `error`: what the rest shares
//! - `config`: the module's settings
//! - `correlate`: which alarms are one fault; `simulate`: a network in which that is known; `truth`: a file that says so
//! - `reading`: from JSON that came in to values, or to all that is wrong with it
//! - `rows`: SQL that every store needs
//! - `entity`, `kpi`, `sleeping`: the network, what it measures, and which of it has fallen asleep
//! - `alarm`: what an alarm is, and what becomes of it
//! - `ingest`: the words of alarm sources, read into occurrences
//! - `cluster`: occurrences that have one cause
//! - `incident`: what people work on; `sitrep`: where it stands, in plain words
//! - `worker`: correlates what the log brings
//! - `scorecard`: how well all of it goes
//! - `customer`: whom the network serves, and what they may be told

pub mod alarm;
pub mod cluster;
mod config;
pub mod correlate;
pub mod customer;
pub mod entity;
mod error;
pub mod incident;
pub mod ingest;
pub mod kpi;
pub mod reading;
mod rows;
pub mod scorecard;
mod severity;
pub mod simulate;
pub mod sitrep;
pub mod sleeping;
pub mod topology;
pub mod truth;
mod worker;

use tidings_core::clock::Clock;
use tidings_core::log::Log;

pub use config::{Baseline, Config, TypeRule};
pub use error::{Error, Invalid, Step};
pub use severity::{Perceived, Severity, UnknownSeverity};
pub use topology::Topology;

/// The module. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Alarms {
    log: Log,
    clock: Clock,
    config: std::sync::Arc<Config>,
    topologies: entity::Topologies,
    intake: std::sync::Arc<alarm::Intake>,
    next_due: std::sync::Arc<alarm::due::NextDue>,
}

impl Alarms {
    /// Stands the module on a log whose schema is up to date.
    #[must_use]
    pub fn new(log: Log, clock: Clock, config: Config) -> Self {
        Self {
            log,
            clock,
            config: std::sync::Arc::new(config),
            topologies: entity::Topologies::default(),
            intake: std::sync::Arc::default(),
            next_due: std::sync::Arc::default(),
        }
    }

    /// The log that the module stands on.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Where the module's time comes from.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The module's settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }
}

/// Shows how many events a worker is behind the heads of all logs together.
pub fn show_lag(worker: &'static str, events: u64) {
    metrics::gauge!("tidings_worker_lag_events", "worker" => worker).set(events as f64);
}
