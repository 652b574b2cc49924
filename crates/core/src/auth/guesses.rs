//! Slows down who guesses passwords. Pure but for its memory, which is bounded.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Timestamp;

/// Whose attempts are counted; one that is forgotten early helps a guesser little, and memory is bounded.
const MAX_KEYS: usize = 10_000;
/// Attempts are forgotten when there was none for so long.
const FORGET: Duration = Duration::from_secs(15 * 60);
/// The longest wait.
const MAX_WAIT: Duration = Duration::from_secs(5 * 60);

#[derive(Debug, Clone, Copy)]
struct Attempts {
    count: u32,
    last: Timestamp,
    until: Timestamp,
}

/// Failed attempts by key. Beyond the free ones, each costs twice the wait of the one before: 1 s, 2 s, 4 s and so on.
#[derive(Debug, Default)]
pub struct Guesses(Mutex<HashMap<String, Attempts>>);

impl Guesses {
    /// Counts an attempt for each key, which has so many free ones; or says how long to wait, and counts nothing.
    pub fn attempt(&self, keys: &[(&str, u32)], now: Timestamp) -> Result<(), Duration> {
        let mut all = self.0.lock();
        let waits = keys.iter().filter_map(|(key, _)| all.get(*key));
        let wait = waits.map(|attempts| attempts.until.since(now)).max();
        if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }
        for (key, free) in keys {
            make_room(&mut all, now);
            let attempts = all.entry((*key).to_owned()).or_insert(Attempts {
                count: 0,
                last: now,
                until: now,
            });
            if now.since(attempts.last) >= FORGET {
                attempts.count = 0;
            }
            attempts.count = attempts.count.saturating_add(1);
            attempts.last = now;
            let beyond = attempts.count.saturating_sub(*free);
            if let Some(doublings) = beyond.checked_sub(1) {
                let wait = Duration::from_secs(1 << doublings.min(20)).min(MAX_WAIT);
                attempts.until = now.plus(wait);
            }
        }
        Ok(())
    }

    /// The attempt was right after all: what was counted for these keys is forgotten.
    pub fn succeeded(&self, keys: &[(&str, u32)]) {
        let mut all = self.0.lock();
        for (key, _) in keys {
            all.remove(*key);
        }
    }
}

fn make_room(all: &mut HashMap<String, Attempts>, now: Timestamp) {
    if all.len() < MAX_KEYS {
        return;
    }
    all.retain(|_, attempts| now.since(attempts.last) < FORGET);
    while all.len() >= MAX_KEYS {
        let oldest = all.iter().min_by_key(|(_, attempts)| attempts.last);
        let Some(oldest) = oldest.map(|(key, _)| key.clone()) else {
            return;
        };
        all.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn who_fails_often_waits_ever_longer_and_who_succeeds_begins_anew() {
        let guesses = Guesses::default();
        let keys = [("ann", 2)];
        assert_eq!(guesses.attempt(&keys, at(0)), Ok(()));
        assert_eq!(guesses.attempt(&keys, at(0)), Ok(()));
        assert_eq!(guesses.attempt(&keys, at(0)), Ok(()));
        assert_eq!(guesses.attempt(&keys, at(0)), Err(Duration::from_secs(1)));
        assert_eq!(guesses.attempt(&keys, at(1)), Ok(()));
        assert_eq!(guesses.attempt(&keys, at(1)), Err(Duration::from_secs(2)));
        assert_eq!(guesses.attempt(&[("bob", 2)], at(1)), Ok(()));
        guesses.succeeded(&keys);
        assert_eq!(guesses.attempt(&keys, at(1)), Ok(()));
        let mut now = 10;
        for _ in 0..40 {
            let _ = guesses.attempt(&keys, at(now));
            now += 300;
        }
        let longest = guesses.attempt(&keys, at(now - 300));
        assert_eq!(longest, Err(MAX_WAIT));
        assert_eq!(guesses.attempt(&keys, at(now + 900)), Ok(()));
        assert_eq!(guesses.attempt(&keys, at(now + 900)), Ok(()));
    }

    #[test]
    fn one_key_that_has_to_wait_is_enough() {
        let guesses = Guesses::default();
        for n in 0..3 {
            let other = format!("name {n}");
            let keys = [("address", 2), (other.as_str(), 5)];
            assert_eq!(guesses.attempt(&keys, at(0)), Ok(()));
        }
        let keys = [("address", 2), ("name 9", 5)];
        assert!(guesses.attempt(&keys, at(0)).is_err());
    }

    #[test]
    fn memory_is_bounded() {
        let guesses = Guesses::default();
        for n in 0..(MAX_KEYS + 50) {
            let key = n.to_string();
            let now = at(i64::try_from(n / 100).unwrap());
            guesses.attempt(&[(key.as_str(), 5)], now).unwrap();
        }
        assert_eq!(guesses.0.lock().len(), MAX_KEYS);
    }
}
