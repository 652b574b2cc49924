//! What a pattern can lead to. A policy can tell topics apart only by what it compares them with, so trying one topic for
//! each combination of those texts, with a name that nobody mentions for all others, tries everything that a pattern
//! matches.
//!
//! What policies compare is read from their parsed form. A comparison of another kind (`like`, or two attributes of the
//! same topic) makes the set undecidable: then any pattern may lead to something.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::auth::principal::Principal;
use crate::topic::{MAX_TOPIC_SEGMENTS, Pattern, Topic};

/// Topics that are tried for a pattern; beyond, it counts as one that may lead to something.
const MAX_TRIED: usize = 4_096;
/// Members of a principal's set that are tried as whole paths; beyond, likewise.
const MAX_OWN_PATHS: usize = 64;
/// The place of `item` in a path, from 0.
const ITEM: usize = 2;

/// A part of the topic that policies can speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Path,
    Prefix,
    Item,
}

/// An attribute of the principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Own {
    Subject,
    Tenant,
    Roles,
    Scopes,
    Patients,
}

/// What a set of policies compares topics with.
#[derive(Debug, Default)]
pub(super) struct Reach {
    is_undecidable: bool,
    /// Whether any policy speaks of the subject.
    is_by_subject: bool,
    texts: BTreeSet<(Part, String)>,
    own: BTreeSet<(Part, Own)>,
}

/// One side of a comparison.
enum Term<'a> {
    Text(&'a str),
    Own(Own),
}

impl Reach {
    /// Takes in a policy in Cedar's JSON form.
    pub(super) fn add(&mut self, policy: &Value) {
        self.is_by_subject |= mentions_subject(policy);
        let scope = &policy["resource"];
        for entity in [&scope["entity"], &scope["in"]["entity"]] {
            if let Some(path) = entity["id"].as_str() {
                self.texts.insert((Part::Path, path.to_owned()));
            }
        }
        for condition in policy["conditions"].as_array().into_iter().flatten() {
            self.walk(&condition["body"]);
        }
    }

    /// Takes in a policy whose form could not be had: nothing is known of it.
    pub(super) fn add_unknown(&mut self) {
        (self.is_undecidable, self.is_by_subject) = (true, true);
    }

    /// Whether any decision can depend on the subject.
    pub(super) fn is_by_subject(&self) -> bool {
        self.is_by_subject
    }

    fn walk(&mut self, expression: &Value) {
        let Some((operator, body)) = expression.as_object().and_then(|o| o.iter().next()) else {
            return;
        };
        let (left, right) = (&body["left"], &body["right"]);
        let is_known = match operator.as_str() {
            "Value" => true,
            "Var" => {
                self.is_undecidable |= body.as_str() == Some("resource");
                true
            }
            "==" | "!=" => self.compares(left, right) || self.compares(right, left),
            "in" => is_resource(left) && self.is_among(right),
            "contains" => self.contains(left, right),
            "is" => is_resource(left) && (body["in"].is_null() || self.is_among(&body["in"])),
            "has" => is_resource(left),
            "." => {
                // The topic's tenant is the principal's: it tells no topics apart.
                let is_topics = is_resource(left);
                self.is_undecidable |= is_topics && body["attr"].as_str() != Some("tenant");
                is_topics
            }
            _ => false,
        };
        match body {
            _ if is_known => {}
            Value::Array(all) => all.iter().for_each(|e| self.walk(e)),
            Value::Object(all) => all.values().for_each(|e| self.walk(e)),
            _ => {}
        }
    }

    fn compares(&mut self, one: &Value, other: &Value) -> bool {
        if is_resource(one) {
            return self.is_among(other);
        }
        match (part(one), term(other)) {
            (Some(part), Some(term)) => {
                self.take(part, &term);
                true
            }
            _ => false,
        }
    }

    /// Topics by name: one, or a set of them.
    fn is_among(&mut self, topics: &Value) -> bool {
        let single = std::slice::from_ref(topics);
        let all = set(topics).unwrap_or(single);
        let Some(paths) = all.iter().map(entity).collect::<Option<Vec<_>>>() else {
            return false;
        };
        let paths = paths.into_iter().map(|p| (Part::Path, p.to_owned()));
        self.texts.extend(paths);
        true
    }

    fn contains(&mut self, all: &Value, one: &Value) -> bool {
        if is_resource(one) {
            return self.is_among(all);
        }
        let Some(part) = part(one) else { return false };
        if let Some(own @ (Own::Roles | Own::Scopes | Own::Patients)) = own(all) {
            self.take(part, &Term::Own(own));
            return true;
        }
        let terms = set(all).and_then(|all| all.iter().map(term).collect::<Option<Vec<_>>>());
        for term in terms.iter().flatten() {
            self.take(part, term);
        }
        terms.is_some()
    }

    fn take(&mut self, part: Part, term: &Term<'_>) {
        match term {
            Term::Text(text) => drop(self.texts.insert((part, (*text).to_owned()))),
            Term::Own(own) => drop(self.own.insert((part, *own))),
        }
    }

    /// Topics that stand for all that a pattern matches; none where that cannot be told, or they are too many.
    pub(super) fn instances(&self, principal: &Principal, pattern: &Pattern) -> Option<Vec<Topic>> {
        let places = self.places(principal)?;
        let mut paths = vec![String::new()];
        let mut done = Vec::new();
        for (place, segment) in pattern.as_str().split('/').enumerate() {
            match segment {
                "**" => {
                    // Below the last place where anything is named, all depths are alike.
                    let last = places.named.len().max(place).min(MAX_TOPIC_SEGMENTS - 1);
                    for place in place..=last {
                        paths = grow(&paths, &places.at(place))?;
                        done.extend(paths.iter().cloned());
                    }
                    paths.clear();
                }
                "*" => paths = grow(&paths, &places.at(place))?,
                name => paths = grow(&paths, &[name])?,
            }
        }
        done.extend(paths);
        // What is no topic cannot be published to.
        (done.len() <= MAX_TRIED).then(|| done.iter().filter_map(|p| Topic::new(p).ok()).collect())
    }

    /// What can stand at each place of a path.
    fn places<'a>(&'a self, principal: &'a Principal) -> Option<Places<'a>> {
        if self.is_undecidable {
            return None;
        }
        let mut places = Places {
            // `item` can be told from a path that has none.
            named: vec![BTreeSet::new(); ITEM + 1],
            fresh: "~".to_owned(),
        };
        for (part, text) in &self.texts {
            places.name(*part, text);
        }
        let sets = |own| match own {
            Own::Roles => Some(&principal.roles),
            Own::Scopes => Some(&principal.scopes),
            Own::Patients => Some(&principal.patient_ids),
            Own::Subject | Own::Tenant => None,
        };
        for &(part, own) in &self.own {
            match (sets(own), own, part) {
                (Some(all), _, Part::Path) if all.len() > MAX_OWN_PATHS => return None,
                (Some(all), _, Part::Path) => all.iter().for_each(|m| places.name(part, m)),
                (None, Own::Tenant, _) => places.name(part, principal.tenant.as_str()),
                (None, ..) => places.name(part, &principal.subject),
                (Some(_), ..) => {}
            }
        }
        // Members of the same sets that nothing else names are alike: one stands for all of them.
        let mut alike: BTreeMap<(&str, Vec<bool>), &str> = BTreeMap::new();
        let used: Vec<_> = self
            .own
            .iter()
            .filter(|(part, _)| *part != Part::Path)
            .filter_map(|&(part, own)| Some((part, sets(own)?)))
            .collect();
        let mut members: BTreeSet<&str> = BTreeSet::new();
        members.extend(used.iter().flat_map(|(_, s)| s.iter()).map(String::as_str));
        for &member in members.iter().filter(|m| is_segment(m)) {
            let is_named = places.named.iter().any(|named| named.contains(member));
            let of = used.iter().map(|(_, s)| s.contains(member)).collect();
            // Named members stand for themselves.
            let who = if is_named { member } else { "" };
            alike.entry((who, of)).or_insert(member);
        }
        for ((_, of), member) in alike {
            for ((part, _), _) in used.iter().zip(of).filter(|(_, is_in)| *is_in) {
                places.name(*part, member);
            }
        }
        while places
            .named
            .iter()
            .any(|n| n.contains(places.fresh.as_str()))
            || members.contains(places.fresh.as_str())
        {
            places.fresh.push('~');
        }
        Some(places)
    }
}

/// What can stand at each place of a path: names, and one that nobody mentions.
struct Places<'a> {
    named: Vec<BTreeSet<&'a str>>,
    fresh: String,
}

impl<'a> Places<'a> {
    fn name(&mut self, part: Part, text: &'a str) {
        match part {
            Part::Path => {
                for (place, segment) in text.split('/').enumerate().take(MAX_TOPIC_SEGMENTS) {
                    if self.named.len() <= place {
                        self.named.push(BTreeSet::new());
                    }
                    self.named[place].extend(Some(segment).filter(|s| is_segment(s)));
                }
            }
            Part::Prefix => self.named[0].extend(Some(text).filter(|s| is_segment(s))),
            Part::Item => self.named[ITEM].extend(Some(text).filter(|s| is_segment(s))),
        }
    }

    fn at(&self, place: usize) -> Vec<&str> {
        let named = self.named.get(place).into_iter().flatten().copied();
        named.chain([self.fresh.as_str()]).collect()
    }
}

fn grow(paths: &[String], segments: &[&str]) -> Option<Vec<String>> {
    let join = |path: &str, segment: &str| match path {
        "" => segment.to_owned(),
        path => format!("{path}/{segment}"),
    };
    let mut grown = Vec::new();
    for path in paths {
        grown.extend(segments.iter().map(|segment| join(path, segment)));
        if grown.len() > MAX_TRIED {
            return None;
        }
    }
    Some(grown)
}

fn is_segment(text: &str) -> bool {
    !text.contains('/') && Topic::new(text).is_ok()
}

fn is_resource(expression: &Value) -> bool {
    expression["Var"].as_str() == Some("resource")
}

fn attribute<'a>(of: &str, expression: &'a Value) -> Option<&'a str> {
    let access = &expression["."];
    (access["left"]["Var"].as_str() == Some(of)).then(|| access["attr"].as_str())?
}

fn part(expression: &Value) -> Option<Part> {
    match attribute("resource", expression)? {
        "path" => Some(Part::Path),
        "prefix" => Some(Part::Prefix),
        "item" => Some(Part::Item),
        _ => None,
    }
}

fn own(expression: &Value) -> Option<Own> {
    if attribute("resource", expression) == Some("tenant") {
        return Some(Own::Tenant);
    }
    match attribute("principal", expression)? {
        "subject" => Some(Own::Subject),
        "tenant" => Some(Own::Tenant),
        "roles" => Some(Own::Roles),
        "scopes" => Some(Own::Scopes),
        "patient_ids" => Some(Own::Patients),
        _ => None,
    }
}

fn term(expression: &Value) -> Option<Term<'_>> {
    if let Some(text) = expression["Value"].as_str() {
        return Some(Term::Text(text));
    }
    own(expression)
        .filter(|own| matches!(own, Own::Subject | Own::Tenant))
        .map(Term::Own)
}

fn set(expression: &Value) -> Option<&[Value]> {
    expression["Set"].as_array().map(Vec::as_slice)
}

fn entity(expression: &Value) -> Option<&str> {
    expression["Value"]["__entity"]["id"].as_str()
}

/// Whether the subject stands anywhere in an expression, in whatever form.
fn mentions_subject(expression: &Value) -> bool {
    match expression {
        Value::Object(all) => {
            all.get("attr").and_then(Value::as_str) == Some("subject")
                || all.values().any(mentions_subject)
        }
        Value::Array(all) => all.iter().any(mentions_subject),
        _ => false,
    }
}
