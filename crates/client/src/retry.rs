//! How long to wait before the next attempt: the server's `retry:` doubled with every failure, spread by chance.

use std::time::Duration;

/// Waits that grow with every failure in a row. Chance comes in as an argument, so that tests need none.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    base: Duration,
    most: Duration,
    /// The server's own `retry:`, which takes the place of `base`.
    asked: Option<Duration>,
    failures: u32,
}

impl Backoff {
    /// Waits of `base`, twice that, and so on, to `most`.
    pub(crate) fn new(base: Duration, most: Duration) -> Self {
        Self {
            base,
            most,
            asked: None,
            failures: 0,
        }
    }

    /// The server has said `retry:`.
    pub(crate) fn ask(&mut self, retry: Duration) {
        self.asked = Some(retry);
    }

    /// The last attempt was good.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait before the next attempt: never under what the server asked for, up to half as much again by `chance`
    /// (0 to 1). `floor` is a wait that this very failure brought (`Retry-After`).
    pub(crate) fn wait(&mut self, floor: Option<Duration>, chance: f64) -> Duration {
        let base = self.asked.unwrap_or(self.base);
        let grown = base.saturating_mul(1u32 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let wait = grown
            .min(self.most.max(base))
            .max(floor.unwrap_or_default());
        wait + wait.mul_f64(chance.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn waits_double_to_their_most_and_start_again() {
        let mut backoff = Backoff::new(ms(100), ms(1_000));
        let waits: Vec<_> = (0..6).map(|_| backoff.wait(None, 0.0)).collect();
        assert_eq!(
            waits,
            [ms(100), ms(200), ms(400), ms(800), ms(1_000), ms(1_000)]
        );
        backoff.reset();
        assert_eq!(backoff.wait(None, 1.0), ms(150));
    }

    #[test]
    fn the_server_is_never_undercut() {
        let mut backoff = Backoff::new(ms(100), ms(1_000));
        backoff.ask(ms(5_000));
        assert_eq!(backoff.wait(None, 0.0), ms(5_000));
        assert_eq!(backoff.wait(Some(ms(9_000)), 0.0), ms(9_000));
        for _ in 0..100 {
            assert!(backoff.wait(None, fastrand::f64()) <= ms(7_500));
        }
    }
}
