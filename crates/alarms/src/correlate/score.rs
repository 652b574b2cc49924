//! How well a partition agrees with the truth.

use std::collections::HashMap;

/// Agreement of two partitions, by pairs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// The adjusted Rand index: 1 where they are the same, about 0 where they agree by chance.
    pub ari: f64,
    /// Of the pairs that are together, the part that belong together.
    pub precision: f64,
    /// Of the pairs that belong together, the part that are.
    pub recall: f64,
}

/// Compares a partition with the truth, both as a label for each item. A part without pairs is 1.
#[must_use]
pub fn score(truth: &[u64], found: &[u64]) -> Score {
    let (mut both, mut by_truth, mut by_found) = (HashMap::new(), HashMap::new(), HashMap::new());
    for (&t, &f) in truth.iter().zip(found) {
        *both.entry((t, f)).or_insert(0u64) += 1;
        *by_truth.entry(t).or_insert(0u64) += 1;
        *by_found.entry(f).or_insert(0u64) += 1;
    }
    let right = pairs(both.into_values());
    let truth_pairs = pairs(by_truth.into_values());
    let found_pairs = pairs(by_found.into_values());
    let all = pairs(std::iter::once(truth.len().min(found.len()) as u64));
    let part = |of: f64| if of == 0.0 { 1.0 } else { right / of };
    let by_chance = if all == 0.0 {
        0.0
    } else {
        truth_pairs * found_pairs / all
    };
    let most = f64::midpoint(truth_pairs, found_pairs);
    Score {
        ari: if most - by_chance == 0.0 {
            1.0
        } else {
            (right - by_chance) / (most - by_chance)
        },
        precision: part(found_pairs),
        recall: part(truth_pairs),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn pairs(sizes: impl Iterator<Item = u64>) -> f64 {
    sizes.map(|n| n as f64 * (n as f64 - 1.0) / 2.0).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_partitions_have_their_known_index() {
        let same = score(&[1, 1, 2, 2], &[7, 7, 3, 3]);
        assert_eq!((same.ari, same.precision, same.recall), (1.0, 1.0, 1.0));
        // From scikit-learn's documentation of adjusted_rand_score.
        assert!((score(&[0, 0, 1, 2], &[0, 0, 1, 1]).ari - 0.571_428).abs() < 1e-5);
        assert!((score(&[0, 0, 1, 1], &[0, 1, 0, 1]).ari + 0.5).abs() < 1e-9);
        assert_eq!(score(&[], &[]).ari, 1.0);
        assert_eq!(score(&[1, 2, 3], &[4, 5, 6]).ari, 1.0);
    }
}
