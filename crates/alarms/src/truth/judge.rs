//! How well clusters agree with the truth.

use std::cmp::Reverse;
use std::collections::HashMap;

use tidings_core::clock::Timestamp;

use super::Truth;
use crate::correlate::Cluster;
use crate::correlate::score::{Score, score};

/// Numbers of those that are in no cluster begin here, so that each is one of its own.
const ALONE: u64 = 1 << 40;

/// Which occurrences somebody holds to be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The cluster of each occurrence.
    labels: Vec<u64>,
    /// What each cluster is said to be rooted in.
    roots: Vec<Option<String>>,
}

/// How well it agrees with the truth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// Agreement by pairs.
    pub score: Score,
    /// Clusters that were found.
    pub clusters: usize,
    /// Occurrences that are in no cluster; each counts as one of its own.
    pub alone: usize,
    /// Faults whose root can be judged: with at least two occurrences, the root's own among them.
    pub roots_judged: usize,
    /// Of these, those whose cluster names the true root.
    pub roots_right: usize,
}

impl Verdict {
    /// The part of the roots that are right; none where there is nothing to judge.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of faults")]
    pub fn root_first(&self) -> Option<f64> {
        (self.roots_judged > 0).then(|| self.roots_right as f64 / self.roots_judged as f64)
    }
}

impl Partition {
    /// So many occurrences, each in no cluster.
    #[must_use]
    pub fn alone(count: usize) -> Self {
        Self {
            labels: (ALONE..).take(count).collect(),
            roots: Vec::new(),
        }
    }

    /// What correlation found among so many.
    #[must_use]
    pub fn of(clusters: Vec<Cluster>, count: usize) -> Self {
        let mut partition = Self::alone(count);
        for cluster in clusters {
            let members = cluster.members.iter().map(|&i| i as usize);
            partition.join(members, Some(cluster.root));
        }
        partition
    }

    /// Makes these occurrences, by their places, a cluster.
    pub fn join(&mut self, members: impl IntoIterator<Item = usize>, root: Option<String>) {
        let label = self.roots.len() as u64;
        self.roots.push(root);
        for i in members {
            if let Some(at) = self.labels.get_mut(i) {
                *at = label;
            }
        }
    }

    /// How many occurrences are in no cluster.
    #[must_use]
    pub fn count_alone(&self) -> usize {
        self.labels.iter().filter(|&&label| label >= ALONE).count()
    }

    /// How well it agrees with another one of the same occurrences.
    #[must_use]
    pub fn agreement(&self, other: &Self) -> Score {
        score(&self.labels, &other.labels)
    }

    /// The root of a cluster.
    fn root(&self, label: u64) -> Option<&str> {
        self.roots.get(usize::try_from(label).ok()?)?.as_deref()
    }
}

impl Truth {
    /// How many faults have an occurrence.
    #[must_use]
    pub fn faults_seen(&self) -> usize {
        self.by_fault().len()
    }

    /// Judges a partition of the occurrences.
    #[must_use]
    pub fn judge(&self, found: &Partition) -> Verdict {
        let began = self.began(found);
        let (mut roots_judged, mut roots_right) = (0, 0);
        for (fault, members) in self.by_fault() {
            let root = &self.roots[&fault];
            let is_own = |&i: &usize| self.occurrences[i].entity_id == *root;
            if members.len() < 2 || !members.iter().any(is_own) {
                continue;
            }
            roots_judged += 1;
            let cluster = most(members.iter().map(|&i| found.labels[i]), &began);
            roots_right += usize::from(cluster.and_then(|c| found.root(c)) == Some(root.as_str()));
        }
        Verdict {
            score: score(&self.faults, &found.labels),
            clusters: found.roots.len(),
            alone: found.count_alone(),
            roots_judged,
            roots_right,
        }
    }

    /// When each cluster began.
    fn began(&self, found: &Partition) -> HashMap<u64, Began<'_>> {
        let mut began: HashMap<u64, Began<'_>> = HashMap::new();
        for (label, it) in found.labels.iter().zip(&self.occurrences) {
            let at = (it.raised_at, it.event_id.as_str());
            let first = began.entry(*label).or_insert(at);
            *first = (*first).min(at);
        }
        began
    }

    fn by_fault(&self) -> HashMap<u64, Vec<usize>> {
        let mut all: HashMap<u64, Vec<usize>> = HashMap::new();
        for (i, &fault) in self.faults.iter().enumerate() {
            all.entry(fault).or_default().push(i);
        }
        all
    }
}

/// When a cluster's first occurrence was raised, and its id.
type Began<'a> = (Timestamp, &'a str);

/// The label that most have; of two, that of the cluster that began first, however clusters are numbered.
fn most(labels: impl Iterator<Item = u64>, began: &HashMap<u64, Began<'_>>) -> Option<u64> {
    let mut votes: HashMap<u64, usize> = HashMap::new();
    for label in labels {
        *votes.entry(label).or_default() += 1;
    }
    let first = votes
        .into_iter()
        .max_by_key(|(label, n)| (*n, Reverse(began.get(label))));
    first.map(|(label, _)| label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::{Occurrence, Rules, correlate};
    use crate::simulate::{Load, Scenario};

    /// Entity and fault of each occurrence.
    fn truth(of: &[(&str, u64)], roots: &[&str]) -> Truth {
        let occurrence = |(i, (entity, _)): (usize, &(&str, u64))| Occurrence {
            event_id: i.to_string(),
            entity_id: (*entity).to_owned(),
            alarm_type: "T".into(),
            raised_at: Timestamp::from_secs(0),
        };
        Truth {
            occurrences: of.iter().enumerate().map(occurrence).collect(),
            faults: of.iter().map(|(_, fault)| *fault).collect(),
            roots: (0u64..).zip(roots.iter().map(|&r| r.to_owned())).collect(),
            ..Truth::default()
        }
    }

    #[test]
    fn roots_count_where_the_fault_shows_one() {
        // Fault 0 is whole, 1 has one occurrence, 2 lacks its root's own, 3 is torn.
        let of = [
            ("a", 0),
            ("b", 0),
            ("c", 1),
            ("d", 2),
            ("e", 2),
            ("f", 3),
            ("g", 3),
            ("h", 3),
        ];
        let truth = truth(&of, &["a", "c", "x", "f"]);
        let mut found = Partition::alone(of.len());
        found.join([0, 1], Some("a".into()));
        found.join([3, 4], Some("x".into()));
        found.join([6, 7], Some("g".into()));
        let verdict = truth.judge(&found);
        assert_eq!((verdict.roots_judged, verdict.roots_right), (2, 1));
        assert_eq!(verdict.root_first(), Some(0.5));
        assert_eq!((verdict.clusters, verdict.alone), (3, 2));
        assert_eq!((verdict.score.precision, verdict.score.recall), (1.0, 0.6));
        let nothing = Partition::alone(of.len());
        assert_eq!(truth.judge(&nothing).root_first(), Some(0.0));
        assert_eq!(found.agreement(&found).ari, 1.0);
        assert_eq!(found.agreement(&nothing).recall, 0.0);
    }

    #[test]
    fn a_torn_fault_is_judged_alike_however_clusters_are_numbered() {
        let truth = truth(&[("a", 0), ("b", 0)], &["a"]);
        let verdict = |parts: [(usize, &str); 2]| {
            let mut found = Partition::alone(2);
            for (i, root) in parts {
                found.join([i], Some(root.to_owned()));
            }
            truth.judge(&found).root_first()
        };
        assert_eq!(verdict([(0, "a"), (1, "b")]), Some(1.0));
        assert_eq!(verdict([(1, "b"), (0, "a")]), Some(1.0));
    }

    #[test]
    fn one_fault_one_cluster_is_perfect_and_so_is_its_root() {
        let run = Scenario::new(3, Load::Sparse).run();
        let truth = Truth {
            topology: run.topology(),
            roots: (0u64..).zip(run.roots.clone()).collect(),
            occurrences: run.alarms.iter().map(|a| a.occurrence.clone()).collect(),
            faults: run.alarms.iter().map(|a| u64::from(a.fault)).collect(),
        };
        let mut perfect = Partition::alone(truth.faults.len());
        for (fault, members) in truth.by_fault() {
            perfect.join(members, Some(truth.roots[&fault].clone()));
        }
        let verdict = truth.judge(&perfect);
        assert_eq!((verdict.score.ari, verdict.root_first()), (1.0, Some(1.0)));
        let clusters = correlate(&truth.occurrences, &truth.topology, &Rules::default());
        let verdict = truth.judge(&Partition::of(clusters, truth.occurrences.len()));
        assert!(
            verdict.score.ari > 0.9 && verdict.root_first() > Some(0.9),
            "{verdict:?}"
        );
        assert_eq!(verdict.alone, 0);
    }
}
