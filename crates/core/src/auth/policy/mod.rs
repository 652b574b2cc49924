//! Who may do what: Cedar policies in text files, validated against a schema before they count, decided once and kept.

mod reach;
mod store;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid,
    PolicySet, Request, RestrictedExpression, Schema, ValidationMode, Validator,
};
use moka::sync::Cache;

use super::principal::Principal;
use crate::tenant::Tenant;
use crate::topic::{Pattern, Topic};

use reach::Reach;
pub use store::{PolicyStore, Watching};

/// The text of the built-in set.
pub const BUILTIN: &str = include_str!("builtin.cedar");
const SCHEMA: &str = include_str!("schema.cedarschema");
/// What makes a policy a template.
const SLOTS: [&str; 2] = ["?principal", "?resource"];
/// Decisions that are kept.
const CACHED: u64 = 100_000;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Put events on a topic.
    Publish,
    /// Be told of a topic's events.
    Subscribe,
    /// Read what a topic holds.
    Read,
    /// What a module's own path does, by its name in the schema. The topic is the one that tells of it.
    Module(&'static str),
}

impl Action {
    /// The action's name in policies.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Read => "read",
            Self::Module(name) => name,
        }
    }
}

/// All that a decision can depend on: readers of an equal class have equal rights.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Class {
    tenant: Tenant,
    /// None where no policy speaks of it.
    subject: Option<Arc<str>>,
    /// A digest of roles, scopes and patients, by keys that nobody outside of this process knows.
    rights: [u64; 2],
}

/// Why a set of policies cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The folder or a file cannot be read.
    #[error("{}: {why}", .file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        why: String,
    },
    /// A policy does not parse, or speaks of what is not in the schema.
    #[error("{}:{line}: {why}", .file.display())]
    Policy {
        /// In which file.
        file: PathBuf,
        /// On which line, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
}

/// One validated set of policies.
pub struct Policies {
    set: PolicySet,
    authorizer: Authorizer,
    types: Types,
    /// What they compare topics with.
    reach: Reach,
    decided: Cache<(Class, Action, Topic), bool>,
    patterns: Cache<(Class, Action, Pattern), bool>,
}

impl std::fmt::Debug for Policies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policies")
            .field("policies", &self.set.policies().count())
            .finish_non_exhaustive()
    }
}

struct Types {
    user: EntityUid,
    topic: EntityTypeName,
    actions: HashMap<String, EntityUid>,
}

impl Types {
    fn new(schema: &Schema) -> Option<Self> {
        let name = |text: &str| EntityTypeName::from_str(text).ok();
        let uid = |of: &EntityTypeName, id: &str| {
            EntityUid::from_type_name_and_id(of.clone(), EntityId::new(id))
        };
        let actions = schema
            .actions()
            .map(|action| (action.id().unescaped().to_owned(), action.clone()))
            .collect();
        Some(Self {
            user: uid(&name("Tidings::User")?, "user"),
            topic: name("Tidings::Topic")?,
            actions,
        })
    }

    fn topic(&self, path: &str) -> EntityUid {
        EntityUid::from_type_name_and_id(self.topic.clone(), EntityId::new(path))
    }
}

impl Policies {
    /// The built-in set.
    pub fn builtin() -> Result<Self, PolicyError> {
        Self::parse(&[(PathBuf::from("builtin.cedar"), BUILTIN.to_owned())])
    }

    /// The `*.cedar` files of a folder, in the order of their names.
    pub fn load(folder: &Path) -> Result<Self, PolicyError> {
        let failed = |file: &Path, e: std::io::Error| PolicyError::File {
            file: file.into(),
            why: e.to_string(),
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(|e| failed(folder, e))? {
            let path = entry.map_err(|e| failed(folder, e))?.path();
            if path.extension().is_some_and(|e| e == "cedar") {
                files.push(path);
            }
        }
        files.sort();
        if files.is_empty() {
            return Err(PolicyError::File {
                file: folder.into(),
                why: "no *.cedar file in this folder".into(),
            });
        }
        let read = |file: PathBuf| {
            std::fs::read_to_string(&file)
                .map_err(|e| failed(&file, e))
                .map(|text| (file, text))
        };
        Self::parse(&files.into_iter().map(read).collect::<Result<Vec<_>, _>>()?)
    }

    fn parse(files: &[(PathBuf, String)]) -> Result<Self, PolicyError> {
        let broken = |why: String| PolicyError::File {
            file: "schema.cedarschema".into(),
            why,
        };
        let (schema, _) =
            Schema::from_cedarschema_str(SCHEMA).map_err(|e| broken(e.to_string()))?;
        let types = Types::new(&schema).ok_or_else(|| broken("type names".into()))?;
        let validator = Validator::new(schema);
        let mut set = PolicySet::new();
        let mut reach = Reach::default();
        let mut number = 0usize;
        for (file, text) in files {
            let parsed =
                PolicySet::from_str(text).map_err(|e| at(file, text, &e, e.to_string()))?;
            if parsed.templates().next().is_some() {
                // Nobody links them: they would never count.
                let line = text
                    .lines()
                    .position(|l| SLOTS.iter().any(|s| l.contains(s)));
                return Err(PolicyError::Policy {
                    file: file.clone(),
                    line: line.map_or(1, |at| at + 1),
                    why: "a template (?principal, ?resource) has no place here".into(),
                });
            }
            let checked = validator.validate(&parsed, ValidationMode::Strict);
            if let Some(e) = checked.validation_errors().next() {
                return Err(at(file, text, e, e.to_string()));
            }
            for policy in parsed.policies() {
                number += 1;
                match policy.to_json() {
                    Ok(form) => reach.add(&form),
                    Err(_) => reach.add_unknown(),
                }
                let id = cedar_policy::PolicyId::new(format!("policy{number}"));
                set.add(policy.new_id(id))
                    .map_err(|e| at(file, text, &e, e.to_string()))?;
            }
        }
        Ok(Self {
            set,
            authorizer: Authorizer::new(),
            types,
            reach,
            decided: Cache::new(CACHED),
            patterns: Cache::new(CACHED / 10),
        })
    }

    /// How many policies there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.set.policies().count()
    }

    /// All that decisions about a principal can depend on.
    #[must_use]
    pub fn class(&self, principal: &Principal) -> Class {
        let subject = self
            .reach
            .is_by_subject()
            .then(|| principal.subject.clone());
        Class {
            tenant: principal.tenant.clone(),
            subject,
            rights: principal.rights(),
        }
    }

    /// Whether a principal may do something with a topic of its own tenant. Other tenants' topics cannot even be asked for.
    #[must_use]
    pub fn allows(&self, principal: &Principal, action: Action, topic: &Topic) -> bool {
        self.allows_class(&self.class(principal), principal, action, topic)
    }

    /// The same for who asks often and keeps the principal's class.
    #[must_use]
    pub fn allows_class(
        &self,
        class: &Class,
        principal: &Principal,
        action: Action,
        topic: &Topic,
    ) -> bool {
        let key = (class.clone(), action, topic.clone());
        if let Some(decided) = self.decided.get(&key) {
            return decided;
        }
        let decided = self.decide(principal, action, topic).unwrap_or(false);
        self.decided.insert(key, decided);
        decided
    }

    /// Whether anything that a pattern stands for may be allowed. False only where it is certain that nothing is.
    #[must_use]
    pub fn may_allow(&self, principal: &Principal, action: Action, pattern: &Pattern) -> bool {
        if let Some(topic) = pattern.as_topic() {
            return self.allows(principal, action, &topic);
        }
        let key = (self.class(principal), action, pattern.clone());
        if let Some(decided) = self.patterns.get(&key) {
            return decided;
        }
        let may = self
            .reach
            .instances(principal, pattern)
            .is_none_or(|topics| {
                topics
                    .iter()
                    .any(|t| self.decide(principal, action, t).unwrap_or(false))
            });
        self.patterns.insert(key, may);
        may
    }

    fn decide(&self, principal: &Principal, action: Action, topic: &Topic) -> Option<bool> {
        let text = |s: &str| RestrictedExpression::new_string(s.to_owned());
        let set =
            |all: &BTreeSet<String>| RestrictedExpression::new_set(all.iter().map(|s| text(s)));
        let user = Entity::new(
            self.types.user.clone(),
            HashMap::from([
                ("tenant".into(), text(principal.tenant.as_str())),
                ("subject".into(), text(&principal.subject)),
                ("roles".into(), set(&principal.roles)),
                ("scopes".into(), set(&principal.scopes)),
                ("patient_ids".into(), set(&principal.patient_ids)),
            ]),
            HashSet::new(),
        )
        .ok()?;
        let uid = self.types.topic(topic.as_str());
        let parents: HashSet<EntityUid> = topic
            .parents()
            .map(|parent| self.types.topic(parent))
            .collect();
        let resource = Entity::new(
            uid.clone(),
            HashMap::from([
                ("tenant".into(), text(principal.tenant.as_str())),
                ("path".into(), text(topic.as_str())),
                ("prefix".into(), text(topic.prefix())),
                (
                    "item".into(),
                    text(topic.as_str().split('/').nth(2).unwrap_or_default()),
                ),
            ]),
            parents,
        )
        .ok()?;
        let entities = Entities::from_entities([user, resource], None).ok()?;
        let action = self.types.actions.get(action.name())?.clone();
        let request =
            Request::new(self.types.user.clone(), action, uid, Context::empty(), None).ok()?;
        let answer = self
            .authorizer
            .is_authorized(&request, &self.set, &entities);
        // A policy that could not be evaluated may be one that forbids.
        let is_whole = answer.diagnostics().errors().next().is_none();
        Some(is_whole && answer.decision() == Decision::Allow)
    }
}

/// An error with the line that it is on, where Cedar tells.
fn at(file: &Path, text: &str, e: &dyn miette::Diagnostic, why: String) -> PolicyError {
    let offset = e
        .labels()
        .and_then(|mut labels| labels.next())
        .map_or(0, |label| label.offset());
    let line = text
        .get(..offset)
        .map_or(1, |before| before.matches('\n').count() + 1);
    PolicyError::Policy {
        file: file.into(),
        line,
        why,
    }
}

#[cfg(test)]
mod alarms_tests;
#[cfg(test)]
mod tests;
