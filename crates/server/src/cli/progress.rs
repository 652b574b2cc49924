//! How far an export or an import has come: on standard error, where that is a terminal.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};

/// A bar where the end is known, else a count.
pub(super) struct Progress {
    bar: ProgressBar,
    events: Arc<AtomicU64>,
}

impl Progress {
    /// Nothing done yet of `length`, in whatever [`Progress::reach`] counts in.
    pub(super) fn new(length: Option<u64>) -> Self {
        let events = Arc::<AtomicU64>::default();
        let bar = length.map_or_else(ProgressBar::no_length, ProgressBar::new);
        let template = match length {
            Some(_) => "[{bar:40}] {percent:>3} %  {events}",
            None => "{events}",
        };
        let counted = events.clone();
        let show = move |state: &ProgressState, out: &mut dyn Write| {
            let count = counted.load(Ordering::Relaxed);
            let millis = u64::try_from(state.elapsed().as_millis()).unwrap_or(u64::MAX);
            let rate = count.saturating_mul(1_000) / millis.max(1);
            // Writing to a line in memory cannot fail.
            let _ = write!(out, "{} events, {}/s", HumanCount(count), HumanCount(rate));
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> ").with_key("events", show));
        }
        Self { bar, events }
    }

    /// One more event is done.
    pub(super) fn event(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
        if self.bar.length().is_none() {
            self.bar.inc(1);
        }
    }

    /// Everything up to here is done.
    pub(super) fn reach(&self, position: u64) {
        if self.bar.length().is_some() {
            self.bar.set_position(position);
        }
    }

    /// All of it is.
    pub(super) fn finish(&self) {
        self.bar.finish();
    }
}
