//! How likely a delay between two occurrences is, by what joins them.
//!
//! A fault takes a log-normal time a hop, every clock is off by a normal one, and a small part of all faults takes any
//! time up to the window. The densities are tabulated once.

use std::f64::consts::PI;
use std::sync::LazyLock;

use super::{SECOND, WINDOW};

/// Log-normal delay of one hop, in seconds: mean and deviation of its logarithm.
const MU: f64 = 0.7;
const SIGMA: f64 = 0.8;
/// Deviation of one clock, in seconds.
const SKEW: f64 = 2.0;
/// How much earlier than its cause an effect may be stamped.
pub(super) const AHEAD: i64 = 12 * SECOND;
/// Hops up the dependency chain that are looked at.
pub(super) const HOPS: usize = 4;

/// A child that is reached raises an alarm, and it arrives.
const REACH: f64 = 0.85 * 0.9;
/// An alarm between the two was lost.
const LOST: f64 = 0.85 * 0.1;
/// Part of the effects that take any time up to the window.
const SLOW: f64 = 0.01;
/// Repeats: their part of the alarms, and within what time they come.
const REPEAT: f64 = 0.1;
const REPEAT_SECONDS: f64 = 30.0;
const LATE_REPEAT: f64 = 0.008;
/// A silent parent: that it was lost, and that both children were reached.
const SILENT: f64 = 0.1 * 0.7;

const STEP: f64 = 0.25;
const FIRST: f64 = -12.0;
/// Places of the table: from `FIRST` to 60 s.
const PLACES: usize = 289;
const ZERO: usize = 48;

type Table = [f64; PLACES];

struct Tables {
    /// By hops, less one.
    down: [Table; HOPS],
    /// Two hops to the one, one hop to the other, and so on.
    across: [[Table; 2]; 2],
    /// The likeliest delay by hops, in microseconds.
    likeliest: [i64; HOPS],
}

static TABLES: LazyLock<Tables> = LazyLock::new(tables);

/// The density of a cause `hops` up the chain, a second, `delay` microseconds before its effect.
pub(super) fn by_dependency(hops: usize, delay: i64) -> f64 {
    if hops == 0 || hops > HOPS || !(-AHEAD..=WINDOW).contains(&delay) {
        return 0.0;
    }
    let lost = (1..hops).fold(1.0, |p, _| p * LOST);
    let slow = if delay > 0 {
        SLOW / seconds(WINDOW)
    } else {
        0.0
    };
    REACH * lost * (look_up(&TABLES.down[hops - 1], delay) + slow)
}

/// The delay at which [`by_dependency`] is greatest; it falls off on both sides.
pub(super) fn likeliest(hops: usize) -> i64 {
    TABLES.likeliest[hops.clamp(1, HOPS) - 1]
}

/// The density of the same entity's raising again.
pub(super) fn by_repeat(delay: i64) -> f64 {
    if !(0..=WINDOW).contains(&delay) {
        return 0.0;
    }
    let late = LATE_REPEAT / seconds(WINDOW);
    if seconds(delay) <= REPEAT_SECONDS {
        REPEAT / REPEAT_SECONDS + late
    } else {
        late
    }
}

/// The density of two effects of one silent cause, `hops` below it (each 1 or 2), `delay` being the first's time less the
/// second's.
pub(super) fn by_silent_parent(hops: (usize, usize), delay: i64) -> f64 {
    let (Some(a), Some(b)) = (hops.0.checked_sub(1), hops.1.checked_sub(1)) else {
        return 0.0;
    };
    let Some(table) = TABLES.across.get(a).and_then(|t| t.get(b)) else {
        return 0.0;
    };
    let lost = (0..a + b).fold(1.0, |p, _| p * LOST);
    SILENT * lost * look_up(table, delay)
}

#[expect(clippy::cast_precision_loss, reason = "a delay is far below 2^52 µs")]
pub(super) fn seconds(micros: i64) -> f64 {
    micros as f64 / SECOND as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be within the table"
)]
fn look_up(table: &Table, delay: i64) -> f64 {
    let place = ((seconds(delay) - FIRST) / STEP).round();
    if place < 0.0 {
        return 0.0;
    }
    table.get(place as usize).copied().unwrap_or(0.0)
}

fn tables() -> Tables {
    let one = one_hop();
    let mut sum = one;
    let mut sums = [one; HOPS];
    for table in sums.iter_mut().skip(1) {
        sum = convolve(&sum, &one);
        *table = sum;
    }
    let down = sums.map(|table| blur(&table));
    let across = [
        [
            blur(&difference(&sums[0], &sums[0])),
            blur(&difference(&sums[0], &sums[1])),
        ],
        [
            blur(&difference(&sums[1], &sums[0])),
            blur(&difference(&sums[1], &sums[1])),
        ],
    ];
    let likeliest = down.map(|table| {
        let peak = (0..PLACES).max_by(|&a, &b| table[a].total_cmp(&table[b]));
        let peak = i64::try_from(peak.unwrap_or(ZERO)).unwrap_or_default();
        peak * SECOND / 4 - 12 * SECOND
    });
    Tables {
        down,
        across,
        likeliest,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred places")]
fn time(place: usize) -> f64 {
    FIRST + STEP * place as f64
}

/// The log-normal density, averaged over each step.
fn one_hop() -> Table {
    std::array::from_fn(|place| {
        let parts = (0..10).map(|part| time(place) + STEP * ((f64::from(part) + 0.5) / 10.0 - 0.5));
        let density = |x: f64| {
            let z = (x.ln() - MU) / SIGMA;
            (-0.5 * z * z).exp() / (x * SIGMA * (2.0 * PI).sqrt())
        };
        parts.filter(|&x| x > 0.0).map(density).sum::<f64>() / 10.0
    })
}

/// Of a sum of two positive delays.
fn convolve(a: &Table, b: &Table) -> Table {
    std::array::from_fn(|place| {
        (ZERO..PLACES)
            .filter(|&j| place + ZERO >= j)
            .map(|j| a.get(place + ZERO - j).copied().unwrap_or(0.0) * b[j] * STEP)
            .sum()
    })
}

/// Of the difference of two positive delays.
fn difference(a: &Table, b: &Table) -> Table {
    std::array::from_fn(|place| {
        (ZERO..PLACES)
            .filter(|&j| place + j >= ZERO)
            .map(|j| a.get(place + j - ZERO).copied().unwrap_or(0.0) * b[j] * STEP)
            .sum()
    })
}

/// With the difference of two clocks on top.
fn blur(table: &Table) -> Table {
    let deviation = SKEW * 2f64.sqrt();
    let clocks: Vec<f64> = (0..=2 * ZERO)
        .map(|k| {
            let z = (time(k)) / deviation;
            (-0.5 * z * z).exp() / (deviation * (2.0 * PI).sqrt())
        })
        .collect();
    std::array::from_fn(|place| {
        clocks
            .iter()
            .enumerate()
            .filter(|&(k, _)| place + ZERO >= k)
            .map(|(k, weight)| table.get(place + ZERO - k).copied().unwrap_or(0.0) * weight * STEP)
            .sum()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn densities_are_densities_that_rise_once_and_fall() {
        for hops in 1..=HOPS {
            let table = &TABLES.down[hops - 1];
            let sum: f64 = table.iter().sum::<f64>() * STEP;
            assert!((0.97..=1.001).contains(&sum), "{hops} hops: {sum}");
            let peak = usize::try_from((likeliest(hops) + 12 * SECOND) * 4 / SECOND).unwrap();
            assert!(table[..=peak].is_sorted(), "{hops} hops rise");
            assert!(table[peak..].iter().rev().is_sorted(), "{hops} hops fall");
        }
    }

    #[test]
    fn nothing_reaches_beyond_the_window() {
        for delay in [WINDOW + 1, -AHEAD - 1, i64::MAX, i64::MIN] {
            assert_eq!(by_dependency(1, delay), 0.0);
            assert_eq!(by_repeat(delay), 0.0);
        }
        assert!(by_dependency(1, WINDOW) > 0.0);
        assert!(by_repeat(WINDOW) > 0.0);
        assert_eq!(by_silent_parent((1, 3), 0), 0.0);
    }
}
