//! Whether a series sleeps: pure, from its samples, the time, and whether it slept before.

use std::time::Duration;

use serde::Serialize;
use tidings_core::clock::Timestamp;

use super::baseline::{Point, Usual, median};
use crate::config::Baseline;

/// A value that lies lower than so many deviations is asleep.
const LOW: f64 = -3.0;
/// A series that says nothing for longer is asleep, if it usually speaks at least that often.
const SILENCE: Duration = Duration::from_secs(15 * 60);

/// Why a series counts as asleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// Its newest value lies far below what is usual.
    Low,
    /// There is no new value.
    Silence,
}

impl Cause {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Silence => "silence",
        }
    }
}

/// How a series sleeps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sleep {
    /// Why.
    pub cause: Cause,
    /// Since when: the first low sample, or the last one before the silence.
    pub since: Timestamp,
    /// Deviations above what is usual, so below -3; none in silence.
    pub z_score: Option<f64>,
    /// What is usual.
    pub usual: Usual,
    /// The newest value; none in silence.
    pub current_value: Option<f64>,
}

/// What there is to say of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// It sleeps.
    Asleep(Sleep),
    /// It is as usual: its newest sample.
    Awake(Point),
    /// There is not enough to tell: whoever slept sleeps on.
    Unknown,
}

/// What a verdict goes by.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Samples that a baseline needs.
    pub min_samples: usize,
    /// What a sample is compared with.
    pub baseline: Baseline,
}

impl Rules {
    /// Judges a series by its samples of the baseline's window, oldest first.
    #[must_use]
    pub fn judge(&self, points: &[Point], now: Timestamp, before: Option<&Sleep>) -> Verdict {
        let Some((newest, earlier)) = points.split_last() else {
            return Verdict::Unknown;
        };
        if self.is_silent(points, now, before) {
            let usual = self.of_awake(points, now, before);
            return usual.map_or(Verdict::Unknown, |usual| {
                Verdict::Asleep(Sleep {
                    cause: Cause::Silence,
                    since: before.map_or(newest.0, |b| b.since),
                    z_score: None,
                    usual,
                    current_value: None,
                })
            });
        }
        let (at, value) = *newest;
        let usual = self.of_awake(earlier, at, before);
        match usual.and_then(|usual| Some((usual, usual.z_score(value)?))) {
            Some((usual, z)) if z < LOW => Verdict::Asleep(Sleep {
                cause: Cause::Low,
                since: before.map_or(at, |b| b.since),
                z_score: Some(z),
                usual,
                current_value: Some(value),
            }),
            Some(_) => Verdict::Awake(*newest),
            // It speaks again, and that is all there is to know.
            None if before.is_some_and(|b| b.cause == Cause::Silence) => Verdict::Awake(*newest),
            None => Verdict::Unknown,
        }
    }

    fn is_silent(&self, points: &[Point], now: Timestamp, before: Option<&Sleep>) -> bool {
        let Some((newest, _)) = points.last() else {
            return false;
        };
        let interval = typical_interval(points);
        let counts = before.is_some_and(|b| b.cause == Cause::Silence)
            || (points.len() >= self.min_samples && interval.is_some_and(|i| i <= SILENCE));
        // A sample that comes every quarter of an hour may be late for a moment.
        let allowed = interval.unwrap_or_default().min(SILENCE) * 5 / 4;
        counts && now.since(*newest) > allowed.max(SILENCE)
    }

    /// What is usual while the series is awake. What it says asleep must not become so, until that is all there is.
    fn of_awake(&self, points: &[Point], at: Timestamp, before: Option<&Sleep>) -> Option<Usual> {
        let of = |points: &[Point]| {
            let usual = self.baseline.usual(points, at);
            usual.filter(|_| points.len() >= self.min_samples)
        };
        let Some(before) = before else {
            return of(points);
        };
        let is_awake = |(at, _): &Point| match before.cause {
            Cause::Low => *at < before.since,
            Cause::Silence => *at <= before.since,
        };
        let awake = points.partition_point(is_awake);
        let is_spread = |usual: &Usual| usual.z_score(usual.mean).is_some();
        if let Some(usual) = of(&points[..awake]).filter(is_spread) {
            return Some(usual);
        }
        let is_new_normal = at.since(before.since) > self.baseline.window();
        let now_usual = of(points).filter(is_spread).filter(|_| is_new_normal);
        Some(now_usual.unwrap_or(before.usual))
    }
}

/// The middle one of the times from one sample to the next.
fn typical_interval(points: &[Point]) -> Option<Duration> {
    let gaps = points.windows(2).map(|pair| pair[1].0.since(pair[0].0));
    // Two sources may speak at once.
    let gaps = gaps.filter(|gap| !gap.is_zero());
    let seconds = median(gaps.map(|gap| gap.as_secs_f64()).collect())?;
    Duration::try_from_secs_f64(seconds).ok()
}
