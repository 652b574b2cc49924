//! The words of alarm sources, read into occurrences: all of a batch, or what is wrong with it. Pure: no I/O, no clock.
//!
//! - `native`: tidings' own alarm objects
//! - `cloudevents`: the same as the data of CloudEvents 1.0
//! - `alertmanager`: Alertmanager's webhook, and Prometheus's own alerts
//! - `tmf642`: TM Forum's alarm resource

pub mod alertmanager;
pub mod cloudevents;
pub mod native;
pub mod tmf642;

use tidings_core::clock::Timestamp;

use crate::Config;
use crate::reading::Fault;

/// What readers need to know beside the input.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The settings.
    pub config: &'a Config,
    /// Now.
    pub now: Timestamp,
}

impl Context<'_> {
    /// Refuses a time that lies further ahead than clocks are apart.
    fn not_ahead(&self, at: Timestamp) -> Result<Timestamp, Fault> {
        let most = self.config.max_future;
        if at > self.now.plus(most) {
            let message = format!("lies more than {} s ahead of now", most.as_secs());
            return Err(("datetime_future", message));
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests;
