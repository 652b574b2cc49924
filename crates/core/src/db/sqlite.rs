//! Embedded SQLite: write-ahead log, every commit on the disk before it is answered.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use rusqlite::types::ToSqlOutput;
use rusqlite::{CachedStatement, Connection, ErrorCode, ToSql};

use super::{DbError, RowRef, Value};

/// How long a statement waits for another connection's lock. Only the checkpointer and `migrate` ever hold one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Statements kept prepared on each connection.
const CACHED_STATEMENTS: usize = 128;

/// One connection to the file.
#[derive(Debug)]
pub struct Sqlite(Connection);

impl Sqlite {
    pub(super) fn open(path: &Path) -> Result<Self, DbError> {
        let conn = Connection::open(path).map_err(|e| failed(&e))?;
        conn.busy_timeout(BUSY_TIMEOUT).map_err(|e| failed(&e))?;
        conn.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
        // synchronous=FULL syncs the write-ahead log at each commit. The committer checkpoints by itself, beside its
        // commits, so that none of them waits for one.
        conn.execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA wal_autocheckpoint=0;
             PRAGMA temp_store=MEMORY; PRAGMA cache_size=-16384; PRAGMA mmap_size=268435456;",
        )
        .map_err(|e| failed(&e))?;
        Ok(Self(conn))
    }

    pub(super) fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<u64, DbError> {
        let mut statement = self.bind(sql, params)?;
        statement
            .raw_execute()
            .map(|changed| changed as u64)
            .map_err(|e| failed(&e))
    }

    pub(super) fn batch(&mut self, sql: &str) -> Result<(), DbError> {
        self.0.execute_batch(sql).map_err(|e| failed(&e))
    }

    pub(super) fn each(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(RowRef<'_>) -> Result<ControlFlow<()>, DbError>,
    ) -> Result<(), DbError> {
        let mut statement = self.bind(sql, params)?;
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().map_err(|e| failed(&e))? {
            if each(RowRef::Sqlite(row))?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Runs one statement, whose parameters are `?1`, `?2` and so on, for many rows.
    pub(crate) fn insert<P: rusqlite::Params>(
        &mut self,
        sql: &str,
        rows: impl Iterator<Item = P>,
    ) -> Result<(), DbError> {
        let mut statement = self.0.prepare_cached(sql).map_err(|e| failed(&e))?;
        for row in rows {
            statement.execute(row).map_err(|e| failed(&e))?;
        }
        Ok(())
    }

    /// Copies what the write-ahead log holds into the database as far as no reader stands in the way.
    pub(crate) fn checkpoint(&mut self) -> Result<(), DbError> {
        self.0
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
            .map_err(|e| failed(&e))
    }

    /// Whether what is freed is written over, so that nobody finds it in the file.
    pub(crate) fn overwrite_freed(&mut self, is_wanted: bool) -> Result<(), DbError> {
        let sql = if is_wanted {
            "PRAGMA secure_delete=ON"
        } else {
            "PRAGMA secure_delete=OFF"
        };
        self.0
            .query_row(sql, [], |_| Ok(()))
            .map_err(|e| failed(&e))
    }

    /// Copies the write-ahead log into the database and empties it. Says whether nobody stood in the way.
    pub(crate) fn empty_wal(&mut self) -> Result<bool, DbError> {
        self.0
            .busy_timeout(Duration::ZERO)
            .map_err(|e| failed(&e))?;
        let result = self
            .0
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
        self.0.busy_timeout(BUSY_TIMEOUT).map_err(|e| failed(&e))?;
        result.map(|busy: i64| busy == 0).map_err(|e| failed(&e))
    }

    fn bind(&mut self, sql: &str, params: &[Value<'_>]) -> Result<CachedStatement<'_>, DbError> {
        let sql = numbered(sql);
        let mut statement = self.0.prepare_cached(&sql).map_err(|e| failed(&e))?;
        for (at, value) in (1..).zip(params) {
            statement
                .raw_bind_parameter(at, value)
                .map_err(|e| failed(&e))?;
        }
        Ok(statement)
    }
}

/// A statement with `?1` for `$1`. SQLite takes `$1` for a name: it numbers names as they appear, and looks for each in a
/// list, which makes the binding of a thousand of them quadratic.
fn numbered(sql: &str) -> String {
    let mut numbered = String::with_capacity(sql.len());
    let mut pieces = sql.split('$');
    numbered.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let is_number = piece.starts_with(|c: char| c.is_ascii_digit());
        numbered.push(if is_number { '?' } else { '$' });
        numbered.push_str(piece);
    }
    numbered
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Value::Null => ToSqlOutput::from(rusqlite::types::Null),
            Value::Int(value) => ToSqlOutput::from(*value),
            Value::Real(value) => ToSqlOutput::from(*value),
            Value::Text(value) => ToSqlOutput::from(*value),
        })
    }
}

fn failed(e: &rusqlite::Error) -> DbError {
    let text = e.to_string();
    match e.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => DbError::Full(text),
        Some(ErrorCode::ConstraintViolation) => DbError::Conflict(text),
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::OutOfMemory,
        ) => DbError::Unavailable(text),
        _ => DbError::Fault(text),
    }
}

#[cfg(test)]
mod tests {
    use super::numbered;

    #[test]
    fn parameters_are_numbered_and_other_dollars_stay() {
        assert_eq!(
            numbered("SELECT $1, $12, '$.a', $1"),
            "SELECT ?1, ?12, '$.a', ?1"
        );
        assert_eq!(numbered("$3"), "?3");
        assert_eq!(numbered("SELECT 1"), "SELECT 1");
    }
}
