//! How well faults are told apart, by scikit-learn's own figure.

use std::io::Write as _;
use std::process::{Command, Stdio};

use tidings_alarms::correlate::score::score;
use tidings_alarms::correlate::{Occurrence, Rules, correlate};
use tidings_alarms::simulate::{Flaws, Load, run};
use tidings_core::clock::Timestamp;

const SEEDS: u64 = 8;
const SCRIPT: &str = "
import json, sys
from sklearn.metrics import adjusted_rand_score
for line in sys.stdin:
    truth, found = json.loads(line)
    print(repr(float(adjusted_rand_score(truth, found))))
";

/// Labels of one run: the truth, and what was found.
fn labels(seed: u64, load: Load, missing: f64) -> (Vec<u64>, Vec<u64>) {
    let flaws = Flaws {
        missing,
        ..Flaws::default()
    };
    let run = run(seed, load, flaws, Timestamp::from_secs(1_790_000_000));
    let occurrences: Vec<Occurrence> = run.alarms.iter().map(|a| a.occurrence.clone()).collect();
    let mut found = vec![0; occurrences.len()];
    for (n, cluster) in (0u64..).zip(correlate(&occurrences, &run.topology(), &Rules::default())) {
        for i in cluster.members {
            found[i as usize] = n;
        }
    }
    (
        run.alarms.iter().map(|a| u64::from(a.fault)).collect(),
        found,
    )
}

#[test]
fn scikit_learn_finds_the_promised_agreement() {
    let Ok(python) = std::env::var("TIDINGS_TEST_PYTHON") else {
        assert!(
            std::env::var("CI").is_err(),
            "TIDINGS_TEST_PYTHON must name a Python with scikit-learn in CI: see ./x test"
        );
        eprintln!(
            "not compared with scikit-learn: TIDINGS_TEST_PYTHON is not set (./x test sets it)"
        );
        return;
    };
    let cases: Vec<(Load, f64, f64)> = vec![
        (Load::Sparse, 0.0, 0.99),
        (Load::Busy, 0.0, 0.97),
        (Load::Storm, 0.0, 0.88),
        (Load::Sparse, 0.1, 0.70),
        (Load::Busy, 0.1, 0.70),
        (Load::Storm, 0.1, 0.60),
    ];
    let mut ours = Vec::new();
    let mut input = String::new();
    for &(load, missing, _) in &cases {
        for seed in 100..100 + SEEDS {
            let (truth, found) = labels(seed, load, missing);
            ours.push(score(&truth, &found).ari);
            input += &serde_json::to_string(&(truth, found)).unwrap();
            input.push('\n');
        }
    }
    let mut child = Command::new(python)
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let theirs: Vec<f64> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(theirs.len(), ours.len());
    for (a, b) in ours.iter().zip(&theirs) {
        assert!((a - b).abs() < 1e-9, "{a} is not scikit-learn's {b}");
    }
    for (&(load, missing, least), of) in cases
        .iter()
        .zip(theirs.chunks(usize::try_from(SEEDS).unwrap()))
    {
        let mean = of.iter().sum::<f64>() / SEEDS as f64;
        println!("{load:?}, {missing} of the relations missing: {mean:.4}");
        assert!(mean >= least, "{load:?}, {missing} missing: {mean:.4}");
    }
}
