//! SQL that every noun's store needs: many rows in few statements, and lists as one parameter.

use std::ops::ControlFlow;

use serde::{Serialize, Serializer};
use tidings_core::clock::Timestamp;
use tidings_core::db::{Conn, DbError, RowRef, Value};

/// Rows of one statement, most first. Few different texts, so that they stay prepared.
const SIZES: [usize; 3] = [128, 16, 1];

/// Inserts many rows: `into` is `INSERT INTO table (columns) VALUES`, `values` are the rows' one after another, `tail` what
/// follows them, as `ON CONFLICT ...`. What the statement returns goes to `each`.
pub(crate) fn insert(
    conn: &mut Conn,
    (into, columns, tail): (&str, usize, &str),
    values: &[Value<'_>],
    mut each: impl FnMut(RowRef<'_>) -> Result<(), DbError>,
) -> Result<(), DbError> {
    let mut rest = values;
    while !rest.is_empty() {
        let rows = rest.len() / columns;
        let size = SIZES.into_iter().find(|size| *size <= rows).unwrap_or(1);
        let (now, later) = rest.split_at(rest.len().min(size * columns));
        let sql = statement(into, columns, size, tail);
        conn.each(&sql, now, |row| {
            each(row)?;
            Ok(ControlFlow::Continue(()))
        })?;
        rest = later;
    }
    Ok(())
}

fn statement(into: &str, columns: usize, rows: usize, tail: &str) -> String {
    let row = |row: usize| {
        let numbers = (1..=columns).map(|column| format!("${}", row * columns + column));
        format!("({})", numbers.collect::<Vec<_>>().join(","))
    };
    let rows = (0..rows).map(row).collect::<Vec<_>>().join(",");
    format!("{into} {rows} {tail}")
}

/// The list in parameter `number`, a JSON array of texts made by [`list`], as what `IN` looks in.
pub(crate) fn among(conn: &Conn, number: usize) -> String {
    match conn {
        Conn::Sqlite(_) => format!("(SELECT value FROM json_each(${number}))"),
        Conn::Postgres(_) => {
            format!("(SELECT json_array_elements_text(CAST(CAST(${number} AS TEXT) AS JSON)))")
        }
    }
}

/// Names the index that a statement must use on SQLite. Without figures of its own SQLite takes a tenant for ten rows, and would
/// rather look at all of them in the order that is asked for than sort the few that are.
pub(crate) fn by(conn: &Conn, index: &str) -> String {
    match conn {
        Conn::Sqlite(_) => format!(" INDEXED BY {index}"),
        Conn::Postgres(_) => String::new(),
    }
}

/// Texts as one parameter.
pub(crate) fn list(texts: &[impl AsRef<str>]) -> String {
    let texts = texts.iter().map(|t| t.as_ref().into());
    serde_json::Value::Array(texts.collect()).to_string()
}

/// A number of rows as a parameter.
pub(crate) fn limit(rows: usize) -> Value<'static> {
    Value::Int(i64::try_from(rows).unwrap_or(i64::MAX))
}

/// The moment in a column.
pub(crate) fn time(row: &RowRef<'_>, column: usize) -> Result<Timestamp, DbError> {
    row.int(column).map(Timestamp::from_micros)
}

/// The moment in a column that may be NULL.
pub(crate) fn opt_time(row: &RowRef<'_>, column: usize) -> Result<Option<Timestamp>, DbError> {
    Ok(row.opt_int(column)?.map(Timestamp::from_micros))
}

/// The text in a column that may be NULL, to keep.
pub(crate) fn opt_text(row: &RowRef<'_>, column: usize) -> Result<Option<String>, DbError> {
    Ok(row.opt_text(column)?.map(str::to_owned))
}

/// Shows a moment as RFC 3339.
pub(crate) fn show_time<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(at)
}

/// The same for one that may be missing.
#[expect(clippy::ref_option, reason = "serde calls it with a reference")]
pub(crate) fn show_opt_time<S: Serializer>(
    at: &Option<Timestamp>,
    to: S,
) -> Result<S::Ok, S::Error> {
    at.map(|at| at.to_string()).serialize(to)
}
