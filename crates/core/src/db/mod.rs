//! State on two databases: embedded SQLite, or PostgreSQL, by one SQL text.
//!
//! Statements use `$1`, and only types that both have: `BIGINT` for numbers and microseconds, `TEXT` for the rest. Calls
//! are plain blocking calls: the log's committer owns one connection on a thread of its own, and readers borrow from a
//! small pool on blocking threads ([`Db::read`]).

mod migrate;
mod postgres;
mod sqlite;
mod value;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

pub use value::{RowRef, Value};

/// Readers that may use the database at once. Two cores serve embedded reads; PostgreSQL's are mostly waiting.
const READERS: usize = 4;

/// Why the database did not do as asked, by what the caller can do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DbError {
    /// Not reachable, locked, or shutting down: try again later.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// The disk or the quota is full: nothing can be stored until there is room.
    #[error("the database has no room: {0}")]
    Full(String),
    /// A unique key stands already.
    #[error("a unique key stands already: {0}")]
    Conflict(String),
    /// A mistake in a statement, a migration, or the data.
    #[error("the database refused: {0}")]
    Fault(String),
}

/// Where the state lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A file of our own.
    Sqlite(PathBuf),
    /// A `postgres://` address. `sslmode=require` encrypts and verifies; other modes stay plain.
    Postgres(String),
}

/// One connection. Not shared: its owner calls it from one thread at a time.
#[expect(clippy::large_enum_variant, reason = "there is a handful of them")]
pub enum Conn {
    /// Embedded.
    Sqlite(sqlite::Sqlite),
    /// A server's.
    Postgres(postgres::Postgres),
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sqlite(_) => "Conn::Sqlite",
            Self::Postgres(_) => "Conn::Postgres",
        })
    }
}

/// Runs the same call on whichever backend a connection has.
macro_rules! on {
    ($conn:expr, $it:ident => $call:expr) => {
        match $conn {
            Conn::Sqlite($it) => $call,
            Conn::Postgres($it) => $call,
        }
    };
}

impl Conn {
    /// Runs one statement and says how many rows it changed.
    pub fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<u64, DbError> {
        on!(self, it => it.execute(sql, params))
    }

    /// Inserts many rows of one shape: `insert` ends before VALUES, `conflict` follows them and may be empty. SQLite runs one
    /// prepared statement row by row; PostgreSQL takes many rows a statement.
    pub fn insert_rows(
        &mut self,
        insert: &str,
        rows: &[Vec<Value<'_>>],
        conflict: &str,
    ) -> Result<(), DbError> {
        let Some(columns) = rows.first().map(Vec::len) else {
            return Ok(());
        };
        match self {
            Self::Sqlite(it) => {
                let holes: Vec<_> = (1..=columns).map(|at| format!("?{at}")).collect();
                let sql = format!("{insert} VALUES ({}) {conflict}", holes.join(", "));
                it.insert(&sql, rows.iter().map(rusqlite::params_from_iter))
            }
            Self::Postgres(it) => {
                let mut left = rows;
                // Few sizes, so that few statements are prepared.
                for size in [256, 64, 16, 4, 1] {
                    while left.len() >= size {
                        let (now, later) = left.split_at(size);
                        let sql = format!("{insert} VALUES {} {conflict}", holes(size, columns));
                        let params: Vec<Value<'_>> = now.iter().flatten().copied().collect();
                        it.execute(&sql, &params)?;
                        left = later;
                    }
                }
                Ok(())
            }
        }
    }

    /// Runs one statement without parameters, as BEGIN or COMMIT; it is kept prepared where that helps.
    pub fn command(&mut self, sql: &str) -> Result<(), DbError> {
        match self {
            Self::Sqlite(it) => it.execute(sql, &[]).map(drop),
            Self::Postgres(it) => it.batch(sql),
        }
    }

    /// Runs several statements without parameters.
    pub fn batch(&mut self, sql: &str) -> Result<(), DbError> {
        on!(self, it => it.batch(sql))
    }

    /// Gives the rows to `each`, in order, until it breaks off.
    pub fn each(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
        mut each: impl FnMut(RowRef<'_>) -> Result<ControlFlow<()>, DbError>,
    ) -> Result<(), DbError> {
        on!(self, it => it.each(sql, params, &mut each))
    }

    /// Every row, mapped.
    pub fn rows<T>(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
        mut map: impl FnMut(RowRef<'_>) -> Result<T, DbError>,
    ) -> Result<Vec<T>, DbError> {
        let mut rows = Vec::new();
        self.each(sql, params, |row| {
            rows.push(map(row)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(rows)
    }

    /// The first row, mapped, if there is one.
    pub fn row<T>(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
        map: impl FnMut(RowRef<'_>) -> Result<T, DbError>,
    ) -> Result<Option<T>, DbError> {
        Ok(self.rows(sql, params, map)?.into_iter().next())
    }

    /// Whether the connection can no longer be used.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            Self::Postgres(it) => it.is_closed(),
        }
    }
}

/// `($1, $2), ($3, $4)` for so many rows of so many columns.
fn holes(rows: usize, columns: usize) -> String {
    let row = |at: usize| {
        let holes: Vec<_> = (1..=columns)
            .map(|column| format!("${}", at * columns + column))
            .collect();
        format!("({})", holes.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

struct Shared {
    target: Target,
    idle: Mutex<Vec<Conn>>,
    permits: Arc<Semaphore>,
    probes: Arc<Semaphore>,
}

/// The database: opens connections, and lends them to readers.
#[derive(Clone)]
pub struct Db(Arc<Shared>);

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A PostgreSQL address holds a password: the kind is all that is shown.
        f.write_str(if self.is_postgres() {
            "Db(PostgreSQL)"
        } else {
            "Db(SQLite)"
        })
    }
}

impl Db {
    /// Opens the database and brings its schema up to date. Blocks.
    pub fn open(target: Target) -> Result<Self, DbError> {
        let mut conn = connect(&target)?;
        migrate::run(&mut conn)?;
        let shared = Shared {
            target,
            idle: Mutex::new(vec![conn]),
            permits: Arc::new(Semaphore::new(READERS)),
            probes: Arc::new(Semaphore::new(1)),
        };
        Ok(Self(Arc::new(shared)))
    }

    /// Whether the state is on PostgreSQL.
    #[must_use]
    pub fn is_postgres(&self) -> bool {
        matches!(self.0.target, Target::Postgres(_))
    }

    /// The embedded database's file.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match &self.0.target {
            Target::Sqlite(path) => Some(path),
            Target::Postgres(_) => None,
        }
    }

    /// A connection of the caller's own. Blocks.
    pub fn connect(&self) -> Result<Conn, DbError> {
        connect(&self.0.target)
    }

    /// Runs a read on a borrowed connection, on a blocking thread.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Conn) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        self.lend(&self.0.permits, read).await
    }

    /// Asks the database whether it answers, past all who wait to read.
    pub async fn probe(&self) -> Result<(), DbError> {
        let ask = |conn: &mut Conn| conn.row("SELECT 1", &[], |_| Ok(())).map(drop);
        self.lend(&self.0.probes, ask).await
    }

    async fn lend<T: Send + 'static>(
        &self,
        permits: &Arc<Semaphore>,
        read: impl FnOnce(&mut Conn) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        let permit = permits
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| DbError::Unavailable("closed".into()))?;
        let db = self.clone();
        // The permit goes with the thread: a caller that goes away leaves the read to its end.
        let blocking = move || {
            let _permit = permit;
            db.read_blocking(read)
        };
        match tokio::task::spawn_blocking(blocking).await {
            Ok(result) => result,
            Err(e) => Err(DbError::Fault(format!("a read did not finish: {e}"))),
        }
    }

    /// Runs a read on a borrowed connection, on this thread.
    pub fn read_blocking<T>(
        &self,
        read: impl FnOnce(&mut Conn) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        let idle = self.0.idle.lock().pop();
        let mut conn = match idle {
            Some(conn) => conn,
            None => self.connect()?,
        };
        let result = read(&mut conn);
        let mut idle = self.0.idle.lock();
        // What breaks one connection has broken those that lay idle: the next reads begin anew.
        let broken = if conn.is_broken() {
            std::mem::take(&mut *idle)
        } else {
            Vec::new()
        };
        if !conn.is_broken() && idle.len() < READERS {
            idle.push(conn);
        }
        drop(idle);
        drop(broken);
        result
    }
}

fn connect(target: &Target) -> Result<Conn, DbError> {
    Ok(match target {
        Target::Sqlite(path) => Conn::Sqlite(sqlite::Sqlite::open(path)?),
        Target::Postgres(url) => Conn::Postgres(postgres::Postgres::connect(url)?),
    })
}
