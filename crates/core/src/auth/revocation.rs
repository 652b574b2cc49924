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
    fn index(&mut self) {
        self.subjects.clear();
        self.tokens.clear();
        for r in self.by_id.values() {
            if let Some(subject) = &r.subject {
                let at = self
                    .subjects
                    .entry((r.tenant.clone(), subject.clone()))
                    .or_insert(r.revoked_at);
                *at = (*at).max(r.revoked_at);
            }
            if let Some(token) = &r.token_id {
                *self
                    .tokens
                    .entry((r.tenant.clone(), token.clone()))
                    .or_default() += 1;
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
        known.by_id.extend(
            all.into_iter()
                .map(|r| ((r.tenant.clone(), r.id.clone()), r)),
        );
        known.index();
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
        let mut known = self.0.known.write();
        known.by_id.insert(
            (revocation.tenant.clone(), revocation.id.clone()),
            revocation,
        );
        known.index();
        drop(known);
        self.0.changed.send_modify(|n| *n += 1);
    }

    /// Drops one from memory, once it is gone from the store.
    pub fn undo(&self, tenant: &Tenant, id: &str) {
        let mut known = self.0.known.write();
        known.by_id.remove(&(tenant.clone(), id.to_owned()));
        known.index();
        drop(known);
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
        let sql = format!("{COLUMNS} WHERE tenant = $1 AND id < $2 ORDER BY id DESC LIMIT $3");
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        conn.rows(
            &sql,
            &[
                tenant.as_str().into(),
                after.unwrap_or("~").into(),
                limit.into(),
            ],
            read,
        )
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
