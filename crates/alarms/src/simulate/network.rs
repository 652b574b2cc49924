//! The entities of the network by number, from the cores down: their names, and what each hangs on.

use fastrand::Rng;
use serde_json::{Value, json};

use super::Flaws;

pub(super) const CORES: usize = 4;
const AGGREGATORS: usize = 24;
const SITES: usize = 240;
const CELLS: usize = 720;
pub(super) const FIRST_AGGREGATOR: usize = CORES;
pub(super) const FIRST_SITE: usize = FIRST_AGGREGATOR + AGGREGATORS;
pub(super) const FIRST_CELL: usize = FIRST_SITE + SITES;
/// Entities of the network.
pub const ENTITIES: usize = FIRST_CELL + CELLS;

/// One entity of the network.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// Its type, as entities have it.
    pub entity_type: &'static str,
    /// What it hangs on, as it is known.
    pub parent: Option<String>,
    /// What it hangs on in truth.
    pub true_parent: Option<String>,
}

impl Node {
    /// Whether it is part of its parent; else it depends on it.
    #[must_use]
    pub fn is_part(&self) -> bool {
        self.entity_type == "CELL"
    }

    /// What `POST /api/v1/entities/bulk` takes for it.
    #[must_use]
    pub fn body(&self) -> Value {
        let mut body = json!({"id": self.id, "entity_type": self.entity_type});
        let relation = if self.is_part() {
            "part_of"
        } else {
            "depends_on"
        };
        if let Some(parent) = &self.parent {
            body[relation] = json!([parent]);
        }
        body
    }
}

/// What hangs on an entity.
pub(super) fn children(entity: usize) -> std::ops::Range<usize> {
    let (first, each) = match entity {
        e if e < FIRST_AGGREGATOR => (FIRST_AGGREGATOR + e * 6, 6),
        e if e < FIRST_SITE => (FIRST_SITE + (e - FIRST_AGGREGATOR) * 10, 10),
        e if e < FIRST_CELL => (FIRST_CELL + (e - FIRST_SITE) * 3, 3),
        _ => (0, 0),
    };
    first..first + each
}

fn parent(entity: usize) -> Option<usize> {
    match entity {
        e if e < FIRST_AGGREGATOR => None,
        e if e < FIRST_SITE => Some((e - FIRST_AGGREGATOR) / 6),
        e if e < FIRST_CELL => Some(FIRST_AGGREGATOR + (e - FIRST_SITE) / 10),
        e => Some(FIRST_SITE + (e - FIRST_CELL) / 3),
    }
}

/// An entity's name.
pub(super) fn id(entity: usize) -> String {
    let aggregator = |e: usize| e - FIRST_AGGREGATOR + 1;
    let site = |e: usize| {
        let up = aggregator(FIRST_AGGREGATOR + (e - FIRST_SITE) / 10);
        format!("{up:02}{:02}", (e - FIRST_SITE) % 10 + 1)
    };
    match entity {
        e if e < FIRST_AGGREGATOR => format!("core-{}", e + 1),
        e if e < FIRST_SITE => format!("agg-{:02}", aggregator(e)),
        e if e < FIRST_CELL => format!("site-{}", site(e)),
        e => {
            let up = FIRST_SITE + (e - FIRST_CELL) / 3;
            format!("cell-{}-{}", site(up), (e - FIRST_CELL) % 3 + 1)
        }
    }
}

/// An entity as it is known.
pub(super) fn node(rng: &mut Rng, flaws: Flaws, entity: usize) -> Node {
    let entity_type = match entity {
        e if e < FIRST_AGGREGATOR => "ROUTER",
        e if e < FIRST_SITE => "SWITCH",
        e if e < FIRST_CELL => "SITE",
        _ => "CELL",
    };
    let (is_missing, is_wrong) = (rng.f64() < flaws.missing, rng.f64() < flaws.wrong);
    let other = rng.f64();
    let true_parent = parent(entity);
    let parent = true_parent.filter(|_| !is_missing).map(|parent| {
        let (first, count) = match parent {
            p if p < FIRST_AGGREGATOR => (0, CORES),
            p if p < FIRST_SITE => (FIRST_AGGREGATOR, AGGREGATORS),
            _ => (FIRST_SITE, SITES),
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a few hundred entities"
        )]
        let shift = 1 + (other * (count - 1) as f64) as usize;
        let wrong = first + (parent - first + shift) % count;
        id(if is_wrong { wrong } else { parent })
    });
    Node {
        id: id(entity),
        entity_type,
        parent,
        true_parent: true_parent.map(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_on_an_entity_has_it_above() {
        for entity in 0..ENTITIES {
            assert!(children(entity).all(|c| parent(c) == Some(entity)));
        }
    }
}
