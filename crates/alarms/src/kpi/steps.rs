//! Down-sampling: samples go by once, in order, and leave a point for each step.

use tidings_core::clock::Timestamp;

/// What a step's samples come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Its beginning.
    pub timestamp: Timestamp,
    /// The samples' mean.
    pub mean: f64,
    /// The least of them.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// How many there are, at least one.
    pub count: u64,
}

/// Gathers samples, oldest first, into steps that are aligned to the epoch.
#[derive(Debug)]
pub struct Steps {
    micros: i64,
    done: Vec<Step>,
}

impl Steps {
    /// Steps of so many seconds, at least one.
    #[must_use]
    pub fn of(seconds: u32) -> Self {
        Self {
            micros: i64::from(seconds.max(1)) * 1_000_000,
            done: Vec::new(),
        }
    }

    /// Takes the next sample.
    pub fn push(&mut self, at: Timestamp, value: f64) {
        let at = at.as_micros();
        let timestamp = Timestamp::from_micros(at.saturating_sub(at.rem_euclid(self.micros)));
        match self.done.last_mut().filter(|s| s.timestamp == timestamp) {
            Some(step) => step.add(value),
            None => self.done.push(Step {
                timestamp,
                mean: value,
                min: value,
                max: value,
                count: 1,
            }),
        }
    }

    /// Steps so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.done.len()
    }

    /// Whether there is none yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.done.is_empty()
    }

    /// All of them, oldest first.
    #[must_use]
    pub fn finish(self) -> Vec<Step> {
        self.done
    }
}

impl Step {
    fn add(&mut self, value: f64) {
        self.count += 1;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        #[expect(clippy::cast_precision_loss, reason = "nobody counts to 2^53")]
        let count = self.count as f64;
        // Divided first: the difference of two large values could be infinite. Kept inside, whatever rounding does.
        self.mean = (self.mean + (value / count - self.mean / count)).clamp(self.min, self.max);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn steps(seconds: u32, samples: &[(i64, f64)]) -> Vec<Step> {
        let mut steps = Steps::of(seconds);
        for (at, value) in samples {
            steps.push(Timestamp::from_micros(*at), *value);
        }
        steps.finish()
    }

    #[test]
    fn steps_are_aligned_to_the_epoch_also_before_it() {
        let of = steps(
            60,
            &[(-1, 1.0), (0, 2.0), (59_999_999, 4.0), (60_000_000, 8.0)],
        );
        let shown: Vec<_> = of
            .iter()
            .map(|s| (s.timestamp.as_secs(), s.mean, s.count))
            .collect();
        assert_eq!(shown, [(-60, 1.0, 1), (0, 3.0, 2), (60, 8.0, 1)]);
        assert_eq!((of[1].min, of[1].max), (2.0, 4.0));
    }

    proptest! {
        #[test]
        fn a_step_is_what_its_samples_are(values in prop::collection::vec(-1e6..1e6_f64, 1..50)) {
            let samples: Vec<_> = values.iter().map(|v| (7, *v)).collect();
            let step = steps(3600, &samples)[0];
            let sum: f64 = values.iter().sum();
            prop_assert!((step.mean - sum / values.len() as f64).abs() < 1e-6);
            prop_assert_eq!(step.count, values.len() as u64);
            prop_assert_eq!(step.max, values.iter().copied().fold(f64::MIN, f64::max));
        }

        #[test]
        fn no_step_is_infinite(values in prop::collection::vec(prop::num::f64::NORMAL, 1..50)) {
            let samples: Vec<_> = values.iter().map(|v| (7, *v)).collect();
            let step = steps(1, &samples)[0];
            prop_assert!(step.mean.is_finite() && step.min <= step.mean && step.mean <= step.max);
        }
    }
}
