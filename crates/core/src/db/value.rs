//! What goes into a statement and comes out of a row.

use super::DbError;

/// A parameter of a statement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// NULL.
    Null,
    /// `BIGINT`.
    Int(i64),
    /// `DOUBLE PRECISION`.
    Real(f64),
    /// `TEXT`.
    Text(&'a str),
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for Value<'_> {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(value: &'a String) -> Self {
        Self::Text(value)
    }
}

impl<'a, T> From<Option<T>> for Value<'a>
where
    Self: From<T>,
{
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A row while it is read.
#[derive(Clone, Copy)]
pub enum RowRef<'a> {
    /// Of SQLite.
    Sqlite(&'a rusqlite::Row<'a>),
    /// Of PostgreSQL.
    Postgres(&'a postgres::Row),
}

impl std::fmt::Debug for RowRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RowRef")
    }
}

impl<'a> RowRef<'a> {
    /// The number in a column, counted from 0.
    pub fn int(&self, column: usize) -> Result<i64, DbError> {
        self.opt_int(column)?.ok_or_else(|| null(column))
    }

    /// The number in a column that may be NULL.
    pub fn opt_int(&self, column: usize) -> Result<Option<i64>, DbError> {
        match self {
            Self::Sqlite(row) => row.get(column).map_err(|e| wrong(column, &e)),
            Self::Postgres(row) => row.try_get(column).map_err(|e| wrong(column, &e)),
        }
    }

    /// The real number in a column.
    pub fn real(&self, column: usize) -> Result<f64, DbError> {
        self.opt_real(column)?.ok_or_else(|| null(column))
    }

    /// The real number in a column that may be NULL.
    pub fn opt_real(&self, column: usize) -> Result<Option<f64>, DbError> {
        match self {
            Self::Sqlite(row) => row.get(column).map_err(|e| wrong(column, &e)),
            Self::Postgres(row) => row.try_get(column).map_err(|e| wrong(column, &e)),
        }
    }

    /// The text in a column.
    pub fn text(&self, column: usize) -> Result<&'a str, DbError> {
        self.opt_text(column)?.ok_or_else(|| null(column))
    }

    /// The text in a column that may be NULL.
    pub fn opt_text(&self, column: usize) -> Result<Option<&'a str>, DbError> {
        match self {
            Self::Sqlite(row) => {
                let cell = row.get_ref(column).map_err(|e| wrong(column, &e))?;
                cell.as_str_or_null().map_err(|e| wrong(column, &e))
            }
            Self::Postgres(row) => row.try_get(column).map_err(|e| wrong(column, &e)),
        }
    }
}

fn null(column: usize) -> DbError {
    DbError::Fault(format!("column {column} is NULL"))
}

fn wrong(column: usize, e: &dyn std::error::Error) -> DbError {
    DbError::Fault(format!("column {column}: {e}"))
}
