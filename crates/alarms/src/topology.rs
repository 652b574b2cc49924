//! Which entity depends on which: what correlation and impact walk along.

use std::collections::{HashMap, HashSet, VecDeque};

/// The relations of one tenant's entities.
///
/// An edge goes from an entity to one that it depends on or is part of, its *parent*; a fault travels from parents to
/// children. Targets need not be stored; cycles are allowed.
#[derive(Debug, Clone, Default)]
pub struct Topology {
    parents: HashMap<String, Vec<String>>,
    children: HashMap<String, Vec<String>>,
}

impl Topology {
    /// Puts an entity's relations in place of those that it had.
    pub fn set(&mut self, id: &str, parents: Vec<String>) {
        self.remove(id);
        for parent in &parents {
            let children = self.children.entry(parent.clone()).or_default();
            if !children.iter().any(|c| c == id) {
                children.push(id.into());
            }
        }
        if !parents.is_empty() {
            self.parents.insert(id.into(), parents);
        }
    }

    /// Forgets an entity's own relations; those that others have to it stay.
    pub fn remove(&mut self, id: &str) {
        for parent in self.parents.remove(id).unwrap_or_default() {
            if let Some(children) = self.children.get_mut(&parent) {
                children.retain(|c| c != id);
                if children.is_empty() {
                    self.children.remove(&parent);
                }
            }
        }
    }

    /// How many entities have a relation.
    #[must_use]
    pub fn len(&self) -> usize {
        let above = self.children.keys();
        self.parents.len() + above.filter(|id| !self.parents.contains_key(*id)).count()
    }

    /// Whether no entity has a relation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parents.is_empty()
    }

    /// Whether the entity has a relation in either direction.
    #[must_use]
    pub fn knows(&self, id: &str) -> bool {
        self.parents.contains_key(id) || self.children.contains_key(id)
    }

    /// What the entity depends on or is part of.
    #[must_use]
    pub fn parents(&self, id: &str) -> &[String] {
        self.parents.get(id).map_or(&[], Vec::as_slice)
    }

    /// What depends on the entity or is part of it.
    #[must_use]
    pub fn children(&self, id: &str) -> &[String] {
        self.children.get(id).map_or(&[], Vec::as_slice)
    }

    /// The given entities and all that hang on them, nearest first: at most `depth` steps away, at most `limit` entities.
    #[must_use]
    pub fn downstream<'a>(
        &'a self,
        from: impl IntoIterator<Item = &'a str>,
        depth: usize,
        limit: usize,
    ) -> Vec<&'a str> {
        let mut seen: HashSet<&str> = HashSet::new();
        let mut queue: VecDeque<(&str, usize)> = from.into_iter().map(|id| (id, 0)).collect();
        let mut found = Vec::new();
        while let Some((id, steps)) = queue.pop_front() {
            if found.len() == limit || !seen.insert(id) {
                continue;
            }
            found.push(id);
            if steps < depth {
                queue.extend(self.children(id).iter().map(|c| (c.as_str(), steps + 1)));
            }
        }
        found
    }
}
