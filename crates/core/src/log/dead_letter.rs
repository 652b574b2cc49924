//! What could not be taken in, kept aside with its reason until somebody retries or drops it.

use uuid::Uuid;

use crate::clock::Timestamp;
use crate::db::{Conn, DbError, RowRef};
use crate::event::EventId;

/// One thing set aside.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Its own id, which grows with time.
    pub id: String,
    /// Where it came from, as `import`.
    pub source: String,
    /// Why it could not be taken in.
    pub reason: String,
    /// What came in, as text.
    pub content: String,
    /// When it was set aside.
    pub stored_at: Timestamp,
}

/// The most bytes of content that are kept; the rest is cut.
pub const MAX_CONTENT_BYTES: usize = 1024 * 1024;

/// What is kept of a content: no more than [`MAX_CONTENT_BYTES`], and no NUL, which PostgreSQL's TEXT has not.
#[must_use]
pub fn kept(content: &str) -> String {
    let end = content.floor_char_boundary(MAX_CONTENT_BYTES);
    content[..end].replace('\0', "\u{fffd}")
}

/// Sets something aside. `tenant` is its number ([`super::Tx::tenant_number`]).
pub fn insert(
    conn: &mut Conn,
    tenant: i64,
    source: &str,
    reason: &str,
    content: &str,
    now: Timestamp,
) -> Result<String, DbError> {
    let id = next_id(conn, now)?;
    let content = kept(content);
    conn.execute(
        "INSERT INTO dead_letters (id, tenant, source, reason, content, stored_at) VALUES ($1, $2, $3, $4, $5, $6)",
        &[id.as_str().into(), tenant.into(), source.into(), reason.into(), content.as_str().into(), now.as_micros().into()],
    )?;
    metrics::counter!("tidings_dead_letters", "source" => source.to_owned()).increment(1);
    Ok(id)
}

/// A new id, beyond every other: what is set aside in one transaction has one time, and keeps its order.
fn next_id(conn: &mut Conn, now: Timestamp) -> Result<String, DbError> {
    let id = EventId::random(now).to_string();
    let last = conn.row("SELECT MAX(id) FROM dead_letters", &[], |row| {
        Ok(row.opt_text(0)?.map(str::to_owned))
    })?;
    Ok(match last.flatten() {
        Some(last) if last >= id => {
            let last = Uuid::parse_str(&last).map_err(|e| DbError::Fault(e.to_string()))?;
            Uuid::from_u128(last.as_u128().wrapping_add(1)).to_string()
        }
        _ => id,
    })
}

/// A tenant's dead letters, the newest first, older than `before`.
pub fn list(
    conn: &mut Conn,
    tenant: i64,
    before: Option<&str>,
    limit: usize,
) -> Result<Vec<DeadLetter>, DbError> {
    conn.rows(
        "SELECT id, source, reason, content, stored_at FROM dead_letters \
         WHERE tenant = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
        &[
            tenant.into(),
            before.unwrap_or("~").into(),
            super::store::number_of(limit).into(),
        ],
        read,
    )
}

/// One of a tenant's dead letters.
pub fn find(conn: &mut Conn, tenant: i64, id: &str) -> Result<Option<DeadLetter>, DbError> {
    conn.row(
        "SELECT id, source, reason, content, stored_at FROM dead_letters WHERE tenant = $1 AND id = $2",
        &[tenant.into(), id.into()],
        read,
    )
}

/// Drops one, after it has been taken in. Says whether it was there.
pub fn remove(conn: &mut Conn, tenant: i64, id: &str) -> Result<bool, DbError> {
    Ok(conn.execute(
        "DELETE FROM dead_letters WHERE tenant = $1 AND id = $2",
        &[tenant.into(), id.into()],
    )? > 0)
}

fn read(row: RowRef<'_>) -> Result<DeadLetter, DbError> {
    Ok(DeadLetter {
        id: row.text(0)?.to_owned(),
        source: row.text(1)?.to_owned(),
        reason: row.text(2)?.to_owned(),
        content: row.text(3)?.to_owned(),
        stored_at: Timestamp::from_micros(row.int(4)?),
    })
}
