//! Which feeds an event belongs to: exact topics by hash, patterns by a trie over segments. Both are kept when somebody
//! subscribes, so that a publish looks at nothing that does not match.

use std::collections::HashMap;
use std::sync::Arc;

use super::feed::Feed;
use crate::topic::Patterns;

#[derive(Debug, Default)]
pub(super) struct Index {
    exact: HashMap<Box<str>, Vec<Arc<Feed>>>,
    patterns: Node,
}

#[derive(Debug, Default)]
struct Node {
    literal: HashMap<Box<str>, Self>,
    one: Option<Box<Self>>,
    /// Feeds whose pattern ends here.
    here: Vec<Arc<Feed>>,
    /// Feeds whose pattern goes on with `**`.
    rest: Vec<Arc<Feed>>,
}

impl Node {
    fn is_empty(&self) -> bool {
        self.literal.is_empty()
            && self.one.is_none()
            && self.here.is_empty()
            && self.rest.is_empty()
    }

    fn insert(&mut self, mut path: std::str::Split<'_, char>, feed: &Arc<Feed>) {
        match path.next() {
            None => self.here.push(feed.clone()),
            Some("**") => self.rest.push(feed.clone()),
            Some("*") => self.one.get_or_insert_default().insert(path, feed),
            Some(segment) => self
                .literal
                .entry(segment.into())
                .or_default()
                .insert(path, feed),
        }
    }

    fn remove(&mut self, mut path: std::str::Split<'_, char>, feed: &Arc<Feed>) {
        let others = |f: &Arc<Feed>| !Arc::ptr_eq(f, feed);
        match path.next() {
            None => self.here.retain(others),
            Some("**") => self.rest.retain(others),
            Some("*") => {
                if let Some(node) = &mut self.one {
                    node.remove(path, feed);
                }
                self.one.take_if(|node| node.is_empty());
            }
            Some(segment) => {
                if let Some(node) = self.literal.get_mut(segment) {
                    node.remove(path, feed);
                    if node.is_empty() {
                        self.literal.remove(segment);
                    }
                }
            }
        }
    }

    fn each(&self, mut path: std::str::Split<'_, char>, visit: &mut dyn FnMut(&Arc<Feed>)) {
        let Some(segment) = path.next() else {
            self.here.iter().for_each(visit);
            return;
        };
        self.rest.iter().for_each(&mut *visit);
        if let Some(node) = self.literal.get(segment) {
            node.each(path.clone(), visit);
        }
        if let Some(node) = &self.one {
            node.each(path, visit);
        }
    }
}

impl Index {
    pub(super) fn insert(&mut self, patterns: &Patterns, feed: &Arc<Feed>) {
        for pattern in patterns.as_slice() {
            match pattern.as_topic() {
                Some(topic) => self
                    .exact
                    .entry(topic.as_str().into())
                    .or_default()
                    .push(feed.clone()),
                None => self.patterns.insert(pattern.as_str().split('/'), feed),
            }
        }
    }

    pub(super) fn remove(&mut self, patterns: &Patterns, feed: &Arc<Feed>) {
        for pattern in patterns.as_slice() {
            match pattern.as_topic() {
                Some(topic) => {
                    if let Some(feeds) = self.exact.get_mut(topic.as_str()) {
                        feeds.retain(|f| !Arc::ptr_eq(f, feed));
                        if feeds.is_empty() {
                            self.exact.remove(topic.as_str());
                        }
                    }
                }
                None => self.patterns.remove(pattern.as_str().split('/'), feed),
            }
        }
    }

    /// Visits the feeds that a topic belongs to; one that asks for it twice is visited twice.
    pub(super) fn each(&self, topic: &str, visit: &mut dyn FnMut(&Arc<Feed>)) {
        if let Some(feeds) = self.exact.get(topic) {
            feeds.iter().for_each(&mut *visit);
        }
        if !self.patterns.is_empty() {
            self.patterns.each(topic.split('/'), visit);
        }
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.patterns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hub::feed::tests::feed;
    use crate::topic::Pattern;

    proptest! {
        #[test]
        fn the_index_finds_what_the_patterns_match(
            patterns in prop::collection::vec("(a|b|\\*)(/(a|b|\\*)){0,2}(/\\*\\*)?|\\*\\*", 1..8),
            topic in "(a|b)(/(a|b)){0,3}",
        ) {
            let mut index = Index::default();
            let all: Vec<_> = patterns.iter().map(|p| (Patterns::new(vec![Pattern::new(p).unwrap()]), feed())).collect();
            all.iter().for_each(|(patterns, feed)| index.insert(patterns, feed));
            let mut found = Vec::new();
            index.each(&topic, &mut |feed| found.push(Arc::as_ptr(feed)));
            found.sort();
            let mut expected: Vec<_> = all.iter().filter(|(p, _)| p.matches(&topic)).map(|(_, f)| Arc::as_ptr(f)).collect();
            expected.sort();
            prop_assert_eq!(found, expected);
            all.iter().for_each(|(patterns, feed)| index.remove(patterns, feed));
            prop_assert!(index.is_empty());
        }
    }
}
