//! What is refused although its signature holds: all of a subject's tokens so far, or one token.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use super::principal::Principal;
use crate::clock::Timestamp;
use crate::db::{Conn, DbError, RowRef};
use crate::tenant::Tenant;

/// One revocation. Exactly one of `subject` and `token_id` is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Its id, which grows with time.
    pub id: String,
    /// In which tenant.
    pub tenant: Tenant,
    /// Whose tokens: those made up to `revoked_at`, and those that do not say when they were made.
    pub subject: Option<String>,
    /// Which token, by its `jti`.
    pub token_id: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// By whom.
    pub revoked_by: String,
    /// When.
    pub revoked_at: Timestamp,
}

#[derive(Default)]
struct Known {
    by_id: HashMap<(Tenant, String), Revocation>,
    /// The latest moment for each subject.
    subjects: HashMap<(Tenant, String), Timestamp>,
    tokens: HashMap<(Tenant, String), usize>,
}

impl Known {
    fn add(&mut self, r: Revocation) {
        if self.by_id.contains_key(&(r.tenant.clone(), r.id.clone())) {
            return;
        }
        if let Some(subject) = &r.subject {
            let key = (r.tenant.clone(), subject.clone());
            let at = self.subjects.entry(key).or_insert(r.revoked_at);
            *at = (*at).max(r.revoked_at);
        }
        if let Some(token) = &r.token_id {
            let key = (r.tenant.clone(), token.clone());
            *self.tokens.entry(key).or_default() += 1;
        }
        self.by_id.insert((r.tenant.clone(), r.id.clone()), r);
    }

    fn remove(&mut self, tenant: &Tenant, id: &str) {
        let Some(gone) = self.by_id.remove(&(tenant.clone(), id.to_owned())) else {
            return;
        };
        if let Some(subject) = gone.subject {
            // Another one of the same subject may stand.
            let others = self.by_id.values().filter(|r| r.tenant == *tenant);
            let others = others.filter(|r| r.subject.as_ref() == Some(&subject));
            let latest = others.map(|r| r.revoked_at).max();
            let key = (tenant.clone(), subject);
            match latest {
                Some(at) => drop(self.subjects.insert(key, at)),
                None => drop(self.subjects.remove(&key)),
            }
        }
        if let Some(token) = gone.token_id {
            let key = (tenant.clone(), token);
            let left = self.tokens.get_mut(&key).map(|n| {
                *n -= 1;
                *n
            });
            if left == Some(0) {
                self.tokens.remove(&key);
            }
        }
    }
}

struct Shared {
    known: RwLock<Known>,
    changed: watch::Sender<u64>,
}

/// All revocations, in memory. Cheap to clone.
#[derive(Clone)]
pub struct Revocations(Arc<Shared>);

impl std::fmt::Debug for Revocations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Revocations")
    }
}

const COLUMNS: &str =
    "SELECT id, tenant, subject, token_id, reason, revoked_by, revoked_at FROM revocations";

impl Revocations {
    /// Reads them all.
    pub fn load(conn: &mut Conn) -> Result<Self, DbError> {
        let all = conn.rows(COLUMNS, &[], read)?;
        let mut known = Known::default();
        all.into_iter().for_each(|r| known.add(r));
        Ok(Self(Arc::new(Shared {
            known: RwLock::new(known),
            changed: watch::Sender::new(0),
        })))
    }

    /// Whether a principal's token is revoked.
    #[must_use]
    pub fn refuses(&self, principal: &Principal) -> bool {
        let known = self.0.known.read();
        if known.by_id.is_empty() {
            return false;
        }
        if let Some(token) = &principal.token_id
            && known
                .tokens
                .contains_key(&(principal.tenant.clone(), token.clone()))
        {
            return true;
        }
        let at = known
            .subjects
            .get(&(principal.tenant.clone(), principal.subject.to_string()));
        // A token says its time in whole seconds: one of the same second was made before or with the revocation.
        at.is_some_and(|at| {
            principal
                .issued_at
                .is_none_or(|issued| issued.as_secs() <= at.as_secs())
        })
    }

    /// Counts the changes, for those who follow them.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Takes one into memory, once it is stored.
    pub fn add(&self, revocation: Revocation) {
        self.0.known.write().add(revocation);
        self.0.changed.send_modify(|n| *n += 1);
    }

    /// Drops one from memory, once it is gone from the store.
    pub fn undo(&self, tenant: &Tenant, id: &str) {
        self.0.known.write().remove(tenant, id);
        self.0.changed.send_modify(|n| *n += 1);
    }

    /// Stores one.
    pub fn insert(conn: &mut Conn, r: &Revocation) -> Result<(), DbError> {
        conn.execute(
            "INSERT INTO revocations (id, tenant, subject, token_id, reason, revoked_by, revoked_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            &[
                (&r.id).into(),
                r.tenant.as_str().into(),
                r.subject.as_ref().into(),
                r.token_id.as_ref().into(),
                r.reason.as_ref().into(),
                (&r.revoked_by).into(),
                r.revoked_at.as_micros().into(),
            ],
        )?;
        Ok(())
    }

    /// Removes one of a tenant's. False where it is not there.
    pub fn remove(conn: &mut Conn, tenant: &Tenant, id: &str) -> Result<bool, DbError> {
        let sql = "DELETE FROM revocations WHERE tenant = $1 AND id = $2";
        Ok(conn.execute(sql, &[tenant.as_str().into(), id.into()])? > 0)
    }

    /// A tenant's, the newest first, older than `after`.
    pub fn list(
        conn: &mut Conn,
        tenant: &Tenant,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Revocation>, DbError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        // No text is greater than every id in every database's order of texts, so the first page is a statement of its own.
        match after {
            None => {
                let sql = format!("{COLUMNS} WHERE tenant = $1 ORDER BY id DESC LIMIT $2");
                conn.rows(&sql, &[tenant.as_str().into(), limit.into()], read)
            }
            Some(after) => {
                let sql =
                    format!("{COLUMNS} WHERE tenant = $1 AND id < $2 ORDER BY id DESC LIMIT $3");
                let params = [tenant.as_str().into(), after.into(), limit.into()];
                conn.rows(&sql, &params, read)
            }
        }
    }
}

fn read(row: RowRef<'_>) -> Result<Revocation, DbError> {
    Ok(Revocation {
        id: row.text(0)?.to_owned(),
        tenant: Tenant::new(row.text(1)?).map_err(|e| DbError::Fault(e.to_string()))?,
        subject: row.opt_text(2)?.map(str::to_owned),
        token_id: row.opt_text(3)?.map(str::to_owned),
        reason: row.opt_text(4)?.map(str::to_owned),
        revoked_by: row.text(5)?.to_owned(),
        revoked_at: Timestamp::from_micros(row.int(6)?),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn none() -> Revocations {
        Revocations(Arc::new(Shared {
            known: RwLock::default(),
            changed: watch::Sender::new(0),
        }))
    }

    fn principal(tenant: &str, subject: &str, token: &str, issued: Option<i64>) -> Principal {
        Principal {
            tenant: Tenant::new(tenant).unwrap(),
            subject: subject.into(),
            roles: Default::default(),
            scopes: Default::default(),
            patient_ids: Default::default(),
            expires_at: Timestamp::from_secs(1_000),
            issued_at: issued.map(Timestamp::from_secs),
            token_id: Some(token.into()),
            digest: crate::auth::RightsDigest::default(),
        }
    }

    proptest! {
        /// Against the plain meaning, whatever is revoked and undone, in whatever order: by subject what was issued up to
        /// that second or at no known time, by token that token; and never in another tenant.
        #[test]
        fn what_is_refused_is_what_stands(
            steps in prop::collection::vec((0u8..3, "[ab]", "[xyz]", 0u32..6, 0i64..9), 0..24),
            issued in prop::option::of(0i64..9),
        ) {
            let revocations = none();
            let mut stands: Vec<Revocation> = Vec::new();
            for (what, tenant, name, id, at) in steps {
                let (tenant, id) = (Tenant::new(&tenant).unwrap(), id.to_string());
                if what == 2 {
                    revocations.undo(&tenant, &id);
                    stands.retain(|r| (&r.tenant, &r.id) != (&tenant, &id));
                } else if stands.iter().all(|r| (&r.tenant, &r.id) != (&tenant, &id)) {
                    let r = Revocation {
                        id, tenant,
                        subject: (what == 0).then(|| name.clone()),
                        token_id: (what == 1).then_some(name),
                        reason: None,
                        revoked_by: "admin".into(),
                        revoked_at: Timestamp::from_micros(at * 1_000_000 + 999_999),
                    };
                    revocations.add(r.clone());
                    stands.push(r);
                }
            }
            for (tenant, subject, token) in [("a", "x", "y"), ("a", "y", "x"), ("b", "x", "z"), ("c", "x", "y")] {
                let p = principal(tenant, subject, token, issued);
                let expected = stands.iter().any(|r| {
                    r.tenant == p.tenant
                        && (r.token_id == p.token_id
                            || r.subject.as_deref() == Some(subject)
                                && issued.is_none_or(|at| Timestamp::from_secs(at) <= r.revoked_at))
                });
                prop_assert_eq!(revocations.refuses(&p), expected, "{:?} of {:?}", p, stands);
            }
        }
    }

    #[test]
    fn whoever_follows_is_told_of_each_change() {
        let revocations = none();
        let mut changes = revocations.changes();
        assert!(!changes.has_changed().unwrap());
        revocations.undo(&Tenant::new("a").unwrap(), "1");
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert!(!changes.has_changed().unwrap());
    }
}
