//! How often it is right, on networks whose faults are known.

use std::collections::HashMap;

use tidings_core::clock::Timestamp;

use super::super::score::{Score, score};
use super::super::{Occurrence, Rules, correlate};
use crate::simulate::{FAULTS, Flaws, Load, Run, run};

/// Agreement, and how often the root is the true one: over faults with two occurrences or more, the root's own among them.
fn judge(run: &Run, rules: &Rules) -> (Score, f64) {
    let occurrences: Vec<Occurrence> = run.alarms.iter().map(|a| a.occurrence.clone()).collect();
    let clusters = correlate(&occurrences, &run.topology(), rules);
    let mut found = vec![0; occurrences.len()];
    for (n, cluster) in (0u64..).zip(&clusters) {
        for &i in &cluster.members {
            found[i as usize] = n;
        }
    }
    let truth: Vec<u64> = run.alarms.iter().map(|a| u64::from(a.fault)).collect();
    let (mut right, mut all) = (0, 0);
    for fault in 0..FAULTS {
        let root = &run.roots[fault as usize];
        let of: Vec<usize> = (0..run.alarms.len())
            .filter(|&i| run.alarms[i].fault == fault)
            .collect();
        if of.len() < 2 || of.iter().all(|&i| &occurrences[i].entity_id != root) {
            continue;
        }
        let mut votes: HashMap<u64, usize> = HashMap::new();
        for &i in &of {
            *votes.entry(found[i]).or_default() += 1;
        }
        let (cluster, _) = votes
            .into_iter()
            .max_by_key(|&(c, n)| (n, std::cmp::Reverse(c)))
            .unwrap();
        all += 1;
        right += usize::from(&clusters[usize::try_from(cluster).unwrap()].root == root);
    }
    (score(&truth, &found), right as f64 / f64::from(all))
}

/// Means over seeds: index, precision, recall, root.
fn means(load: Load, flaws: Flaws, rules: &Rules) -> [f64; 4] {
    const SEEDS: u64 = 12;
    let mut sums = [0.0; 4];
    for seed in 0..SEEDS {
        let run = run(seed, load, flaws, Timestamp::from_secs(1_790_000_000));
        let (score, root) = judge(&run, rules);
        for (sum, part) in sums
            .iter_mut()
            .zip([score.ari, score.precision, score.recall, root])
        {
            *sum += part / SEEDS as f64;
        }
    }
    sums
}

#[test]
fn faults_are_told_apart_as_well_as_promised() {
    for (load, least) in [
        (Load::Sparse, 0.99),
        (Load::Busy, 0.97),
        (Load::Storm, 0.88),
    ] {
        let [index, precision, recall, root] = means(load, Flaws::default(), &Rules::default());
        println!(
            "{load:?}: index {index:.4} precision {precision:.4} recall {recall:.4} root {root:.4}"
        );
        assert!(index >= least, "{load:?}: index {index:.4}");
        assert!(precision >= 0.90, "{load:?}: precision {precision:.4}");
        assert!(root >= 0.90, "{load:?}: root {root:.4}");
    }
}

#[test]
fn missing_and_wrong_relations_cost_no_more_than_they_must() {
    let missing = Flaws {
        missing: 0.1,
        ..Flaws::default()
    };
    let wrong = Flaws {
        wrong: 0.1,
        ..Flaws::default()
    };
    for (load, least) in [
        (Load::Sparse, 0.70),
        (Load::Busy, 0.70),
        (Load::Storm, 0.60),
    ] {
        for flaws in [missing, wrong] {
            let [index, precision, recall, root] = means(load, flaws, &Rules::default());
            println!(
                "{load:?} {flaws:?}: index {index:.4} precision {precision:.4} recall {recall:.4} root {root:.4}"
            );
            assert!(index >= least, "{load:?} {flaws:?}: index {index:.4}");
            assert!(root >= 0.85, "{load:?} {flaws:?}: root {root:.4}");
        }
    }
}
