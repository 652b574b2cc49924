//! Rules of sleep, by hand and by what no input may break.

use proptest::prelude::*;

use tidings_core::clock::Timestamp;

use super::{Cause, Point, Rules, Sleep, Usual, Verdict};
use crate::config::Baseline;

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
        let seen = &all[usize::try_from(newest - week).unwrap()..=usize::try_from(newest).unwrap()];
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
        let points: Vec<Point> = (0_i64..).zip(&values).map(|(n, v)| (at(n * every), *v)).collect();
        let rules = rules(if seasonal { Baseline::Seasonal } else { Baseline::Plain });
        let now = points.last().map_or(0, |(at, _)| at.as_secs()) + late;
        let first = rules.judge(&points, at(now), None);
        if let Verdict::Asleep(s) = first {
            let figures = [s.z_score, s.current_value, Some(s.usual.mean), Some(s.usual.deviation)];
            prop_assert!(figures.into_iter().flatten().all(f64::is_finite));
            prop_assert!(s.z_score.is_none_or(|z| z < -3.0));
            // Asked again, it says the same.
            prop_assert_eq!(rules.judge(&points, at(now), Some(&s)), first);
        }
    }
}
