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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: i64 = 60;

    fn rules(baseline: Baseline) -> Rules {
        Rules {
            min_samples: 30,
            baseline,
        }
    }

    fn series(count: i64, every: i64, value: impl Fn(i64) -> f64) -> Vec<Point> {
        let point = |n| (Timestamp::from_secs(n * every), value(n));
        (0..count).map(point).collect()
    }

    fn usual(n: i64) -> f64 {
        100.0 + (n % 3 - 1) as f64
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn judge(points: &[Point], now: i64, before: Option<&Sleep>) -> Verdict {
        rules(Baseline::Plain).judge(points, at(now), before)
    }

    fn sleep(verdict: Verdict) -> Sleep {
        match verdict {
            Verdict::Asleep(sleep) => sleep,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_low_value_sleeps_and_a_high_one_does_not() {
        let mut points = series(31, 5 * MINUTE, usual);
        let end = 30 * 5 * MINUTE;
        assert_eq!(judge(&points, end, None), Verdict::Awake(points[30]));
        points[30].1 = 1.0;
        let low = sleep(judge(&points, end, None));
        assert_eq!(
            (low.cause, low.since, low.current_value),
            (Cause::Low, at(end), Some(1.0))
        );
        assert!((low.usual.mean - 100.0).abs() < 1e-9 && low.z_score.unwrap() < -100.0);
        points[30].1 = 1e9;
        assert_eq!(judge(&points, end, None), Verdict::Awake(points[30]));
    }

    #[test]
    fn exactly_three_deviations_is_not_yet_asleep() {
        // Mean 100, deviation 10.
        let mut points = series(31, 5 * MINUTE, |n| if n % 2 == 0 { 90.0 } else { 110.0 });
        for (value, sleeps) in [(70.0, false), (69.999, true), (130.0, false)] {
            points[30].1 = value;
            let verdict = judge(&points, 30 * 5 * MINUTE, None);
            assert_eq!(matches!(verdict, Verdict::Asleep(_)), sleeps, "{value}");
        }
    }

    #[test]
    fn too_few_samples_or_none_that_deviate_say_nothing() {
        let mut points = series(30, 5 * MINUTE, usual);
        points[29].1 = 1.0;
        let end = 29 * 5 * MINUTE;
        assert_eq!(
            judge(&points, end, None),
            Verdict::Unknown,
            "29 and the newest"
        );
        let mut flat = series(100, 5 * MINUTE, |_| 0.1);
        flat[99].1 = 0.0;
        assert_eq!(judge(&flat, 99 * 5 * MINUTE, None), Verdict::Unknown);
        assert_eq!(judge(&[], end, None), Verdict::Unknown);
    }

    #[test]
    fn silence_counts_after_a_quarter_of_an_hour_where_samples_come_that_often() {
        for (every, allowed) in [
            (MINUTE, 900),
            (5 * MINUTE, 900),
            (14 * MINUTE, 1_050),
            (15 * MINUTE, 1_125),
        ] {
            let points = series(40, every, |_| 5.0);
            let end = 39 * every;
            assert_eq!(
                judge(&points, end + allowed, None),
                Verdict::Unknown,
                "{every}"
            );
            let silent = sleep(judge(&points, end + allowed + 1, None));
            assert_eq!(silent.cause, Cause::Silence);
            assert_eq!(
                (silent.since, silent.z_score, silent.current_value),
                (at(end), None, None)
            );
            assert!((silent.usual.mean - 5.0).abs() < 1e-12);
        }
        let hourly = series(100, 60 * MINUTE, usual);
        assert_eq!(
            judge(&hourly, 200 * 60 * MINUTE, None),
            Verdict::Awake(hourly[99])
        );
        let few = series(29, MINUTE, usual);
        assert_eq!(judge(&few, 100 * MINUTE, None), Verdict::Unknown);
    }

    #[test]
    fn who_spoke_again_is_awake_and_who_speaks_lowly_is_still_asleep() {
        let mut points = series(40, MINUTE, usual);
        let silent = sleep(judge(&points, 60 * MINUTE, None));
        assert_eq!(sleep(judge(&points, 90 * MINUTE, Some(&silent))), silent);
        points.push((at(91 * MINUTE), 99.0));
        assert_eq!(
            judge(&points, 91 * MINUTE, Some(&silent)),
            Verdict::Awake(points[40])
        );
        points[40].1 = 0.0;
        let low = sleep(judge(&points, 91 * MINUTE, Some(&silent)));
        assert_eq!((low.cause, low.since), (Cause::Low, silent.since));
        // Nothing of before is left in the window.
        let only = [(at(9_999 * MINUTE), 99.0)];
        assert_eq!(
            judge(&only, 9_999 * MINUTE, Some(&silent)),
            Verdict::Awake(only[0])
        );
        assert_eq!(judge(&[], 9_999 * MINUTE, Some(&silent)), Verdict::Unknown);
    }

    #[test]
    fn a_long_sleep_does_not_become_usual_until_there_is_nothing_else() {
        let (every, week) = (15 * MINUTE, 7 * 24 * 4);
        let falls = 1_000;
        let all = series(3 * week, every, |n| {
            if n < falls {
                usual(n)
            } else {
                10.0 + usual(n) / 10.0
            }
        });
        let mut before = None;
        let mut woke = None;
        for newest in falls..3 * week {
            let seen =
                &all[usize::try_from(newest - week).unwrap()..=usize::try_from(newest).unwrap()];
            match judge(seen, newest * every, before.as_ref()) {
                Verdict::Asleep(sleep) => before = Some(sleep),
                Verdict::Awake(_) => {
                    woke = Some(newest - falls);
                    break;
                }
                Verdict::Unknown => panic!("{newest}"),
            }
        }
        assert_eq!(woke, Some(week + 1), "a week later it is what is usual");
    }

    #[test]
    fn a_dead_cell_sleeps_until_it_is_back() {
        let before = Sleep {
            cause: Cause::Low,
            since: at(0),
            z_score: Some(-50.0),
            usual: Usual {
                mean: 100.0,
                deviation: 2.0,
            },
            current_value: Some(0.0),
        };
        let mut points = series(700, 15 * MINUTE, |_| 0.0);
        let end = 699 * 15 * MINUTE;
        assert_eq!(sleep(judge(&points, end, Some(&before))).since, at(0));
        points[699].1 = 98.0;
        assert_eq!(
            judge(&points, end, Some(&before)),
            Verdict::Awake(points[699])
        );
    }

    /// Traffic with a day and a week in it, noise, and cells that fall to half of what is usual for two hours.
    fn f1(baseline: Baseline, seed: u64) -> f64 {
        let mut state = seed;
        let mut random = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let (every, weeks) = (60 * MINUTE, 5);
        let hours = weeks * 7 * 24;
        let mut points = series(hours, every, |n| {
            let day = (std::f64::consts::TAU * n as f64 / 24.0).sin();
            let weekend = if (n / 24) % 7 < 5 { 1.0 } else { 0.6 };
            weekend * (100.0 + 80.0 * day)
        });
        for point in &mut points {
            let noise: f64 = (0..12).map(|_| random()).sum::<f64>() - 6.0;
            point.1 *= 1.0 + 0.05 * noise;
        }
        let (mut hits, mut false_alarms, mut missed) = (0.0, 0.0, 0.0);
        let rules = rules(baseline);
        for newest in 4 * 7 * 24..usize::try_from(hours).unwrap() {
            let is_fault = random() < 0.1;
            let window = usize::try_from(baseline.window().as_secs()).unwrap() / 3600;
            let mut seen = points[newest - window..=newest].to_vec();
            if is_fault {
                seen[window].1 *= 0.5;
            }
            let now = seen[window].0;
            match (rules.judge(&seen, now, None), is_fault) {
                (Verdict::Asleep(_), true) => hits += 1.0,
                (Verdict::Asleep(_), false) => false_alarms += 1.0,
                (_, true) => missed += 1.0,
                (_, false) => {}
            }
        }
        2.0 * hits / (2.0 * hits + false_alarms + missed)
    }

    #[test]
    fn the_seasonal_baseline_beats_the_plain_one_on_seasonal_data() {
        for seed in 1..=20 {
            let (plain, seasonal) = (f1(Baseline::Plain, seed), f1(Baseline::Seasonal, seed));
            assert!(
                seasonal > plain + 0.3,
                "seed {seed}: {seasonal} against {plain}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_figure_is_ever_nan_or_infinite(
            values in prop::collection::vec(prop::num::f64::ANY.prop_filter("stored", |v| v.is_finite()), 0..80),
            every in 1_i64..2_000, late in 0_i64..5_000, seasonal: bool,
        ) {
            let points = series(values.len() as i64, every, |n| values[n as usize]);
            let rules = rules(if seasonal { Baseline::Seasonal } else { Baseline::Plain });
            let now = values.len() as i64 * every + late;
            let first = rules.judge(&points, at(now), None);
            if let Verdict::Asleep(s) = first {
                let figures = [s.z_score, s.current_value, Some(s.usual.mean), Some(s.usual.deviation)];
                prop_assert!(figures.into_iter().flatten().all(f64::is_finite));
                prop_assert!(s.z_score.is_none_or(|z| z < LOW));
                // Asked again, it says the same.
                prop_assert_eq!(rules.judge(&points, at(now), Some(&s)), first);
            }
        }
    }
}
