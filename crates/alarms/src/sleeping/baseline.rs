//! What a value is compared with: the mean of seven days, or the median of the same hour of the week.

use std::time::Duration;

use tidings_core::clock::Timestamp;

use crate::config::Baseline;

/// A sample: when, and what.
pub type Point = (Timestamp, f64);

/// How far back the plain baseline looks.
const PLAIN_WINDOW: Duration = Duration::from_secs(7 * 86_400);
/// How far back the seasonal one does: an hour of the week comes four times.
const SEASONAL_WINDOW: Duration = Duration::from_secs(28 * 86_400);
/// Samples of an hour of the week from which it has a level of its own; else all days' together have.
const MIN_LEVEL: usize = 3;
/// Samples from which it has a deviation of its own, too.
const MIN_SPREAD: usize = 12;
/// By what the median absolute deviation, and the mean one, are taken to a standard deviation.
const MAD_TO_SIGMA: f64 = 1.482_602;
const MEAN_AD_TO_SIGMA: f64 = 1.253_314;
/// A deviation that is so much smaller than the level is what rounding leaves of none.
const ROUNDING: f64 = 1e-12;

/// What is usual, and how far from it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usual {
    /// Mean or median.
    pub mean: f64,
    /// Standard deviation, or what stands for it; 0 is none.
    pub deviation: f64,
}

impl Usual {
    /// How many deviations a value lies above; none where nothing deviates, or the figures go beyond what a number holds.
    #[must_use]
    pub fn z_score(&self, value: f64) -> Option<f64> {
        let is_spread = self.deviation > self.mean.abs() * ROUNDING;
        let z = (value - self.mean) / self.deviation;
        (is_spread && z.is_finite()).then_some(z)
    }

    fn checked(mean: f64, deviation: f64) -> Option<Self> {
        (mean.is_finite() && deviation.is_finite()).then_some(Self { mean, deviation })
    }
}

impl Baseline {
    /// How far back it looks.
    #[must_use]
    pub fn window(self) -> Duration {
        match self {
            Self::Plain => PLAIN_WINDOW,
            Self::Seasonal => SEASONAL_WINDOW,
        }
    }

    /// What is usual at a moment, by the samples of the window.
    #[must_use]
    pub fn usual(self, points: &[Point], at: Timestamp) -> Option<Usual> {
        match self {
            Self::Plain => plain(points),
            Self::Seasonal => seasonal(points, at),
        }
    }
}

/// Mean and deviation of the population, in one pass that keeps its digits.
fn plain(points: &[Point]) -> Option<Usual> {
    let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for (_, value) in points {
        count += 1.0;
        let away = value - mean;
        mean += away / count;
        squares += away * (value - mean);
    }
    if count == 0.0 {
        return None;
    }
    Usual::checked(mean, (squares / count).sqrt())
}

/// The median of this hour of the week, with the deviation of this hour of the day.
fn seasonal(points: &[Point], at: Timestamp) -> Option<Usual> {
    let (day, hour) = day_and_hour(at);
    let mut days: [Vec<f64>; 7] = Default::default();
    for (at, value) in points {
        let (day, of) = day_and_hour(*at);
        if of == hour {
            days[day].push(*value);
        }
    }
    let all: Vec<f64> = days.iter().flatten().copied().collect();
    if all.len() < MIN_LEVEL {
        return plain(points);
    }
    let of_all_days = median(all)?;
    let level = |values: &[f64]| match values.len() {
        ..MIN_LEVEL => Some(of_all_days),
        _ => median(values.to_vec()),
    };
    let own = &days[day];
    let apart: Vec<f64> = if own.len() >= MIN_SPREAD {
        residuals(own, level(own)?)
    } else {
        let each = days.iter().filter(|d| !d.is_empty());
        each.filter_map(|d| Some(residuals(d, level(d)?)))
            .flatten()
            .collect()
    };
    Usual::checked(level(own)?, deviation(apart)?)
}

/// How far values lie from their level. A level that was made of few values lies nearer to them than the true one.
fn residuals(values: &[f64], level: f64) -> Vec<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a month of samples is few")]
    let count = values.len() as f64;
    let widen = if values.len() >= MIN_LEVEL {
        (count / (count - 1.0)).sqrt()
    } else {
        1.0
    };
    values.iter().map(|v| (v - level).abs() * widen).collect()
}

/// By the median distance; by the mean one where more than half have none.
fn deviation(apart: Vec<f64>) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a month of samples is few")]
    let mean = apart.iter().sum::<f64>() / apart.len() as f64;
    let by_median = median(apart)? * MAD_TO_SIGMA;
    Some(if by_median > 0.0 {
        by_median
    } else {
        mean * MEAN_AD_TO_SIGMA
    })
}

/// The middle value, or the mean of the two.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let (middle, is_odd) = (values.len() / 2, values.len() % 2 == 1);
    let (below, upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    if is_odd {
        return Some(*upper);
    }
    let lower = below.iter().copied().max_by(f64::total_cmp)?;
    Some(lower / 2.0 + *upper / 2.0)
}

/// The day of the week, counted from any, and the hour of the day, in UTC.
fn day_and_hour(at: Timestamp) -> (usize, usize) {
    let hours = at.as_secs().div_euclid(3600).rem_euclid(7 * 24);
    let hours = usize::try_from(hours).unwrap_or(0);
    (hours / 24, hours % 24)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: impl IntoIterator<Item = f64>) -> Vec<Point> {
        let hour = |(n, value): (i64, f64)| (Timestamp::from_secs(n * 3600), value);
        (0..).zip(values).map(hour).collect()
    }

    #[test]
    fn the_plain_baseline_is_mean_and_deviation_of_the_population() {
        let usual = plain(&points([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0])).unwrap();
        assert!((usual.mean - 5.0).abs() < 1e-12 && (usual.deviation - 2.0).abs() < 1e-12);
        assert_eq!(usual.z_score(-1.0), Some(-3.0));
        assert_eq!(plain(&[]), None);
    }

    #[test]
    fn what_does_not_deviate_has_no_score_and_nothing_is_ever_nan() {
        for value in [0.1, 1e9 + 0.1, 0.0, -7.3e-200, 1.7e308] {
            let usual = plain(&points([value; 100])).unwrap();
            assert_eq!(usual.z_score(0.0), None, "{value}");
        }
        assert_eq!(plain(&points([f64::MAX, f64::MIN, f64::MAX])), None);
        let shifted = plain(&points((0..100).map(|n| 1e9 + f64::from(n % 3)))).unwrap();
        assert!((shifted.deviation - 0.82).abs() < 0.01, "{shifted:?}");
    }

    #[test]
    fn the_seasonal_baseline_knows_the_hour_of_the_week() {
        let value = |n: i64| {
            let (day, hour) = day_and_hour(Timestamp::from_secs(n * 3600));
            let level = if day < 5 { 100.0 } else { 40.0 };
            level * if (8..20).contains(&hour) { 1.0 } else { 0.1 } + ((n * 7) % 5) as f64
        };
        let month = points((0..28 * 24).map(value));
        let usual = |n: i64| seasonal(&month, Timestamp::from_secs(n * 3600)).unwrap();
        for n in 28 * 24..29 * 24 {
            let (by_hour, by_all) = (usual(n), plain(&month).unwrap());
            assert!((by_hour.mean - value(n)).abs() < 6.0, "{by_hour:?} {n}");
            assert!(by_hour.deviation < by_all.deviation / 5.0);
        }
    }

    #[test]
    fn few_samples_of_an_hour_are_helped_out_by_the_other_days() {
        let week = points((0..5 * 24).map(|n| f64::from(n % 24) * 10.0 + f64::from(n % 5)));
        let sixth = Timestamp::from_secs((5 * 24 + 12) * 3600);
        let usual = seasonal(&week, sixth).unwrap();
        assert!(
            (usual.mean - 122.0).abs() < 3.0 && usual.deviation < 5.0,
            "{usual:?}"
        );
        let first = points([5.0, 7.0]);
        assert_eq!(seasonal(&first, sixth), plain(&first));
    }
}
