//! A PostgreSQL server's connection.

use std::collections::HashMap;
use std::error::Error;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::BytesMut;
use postgres::config::SslMode;
use postgres::error::SqlState;
use postgres::fallible_iterator::FallibleIterator;
use postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use postgres::{Client, Config, NoTls, Statement};

use super::{DbError, RowRef, Value};

/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server's machine may answer nothing: to what was sent, or to the question whether it is still there.
const LOST_AFTER: Duration = Duration::from_secs(20);
/// Statements kept prepared on each connection.
const CACHED_STATEMENTS: usize = 256;

/// One connection to a server.
#[expect(missing_debug_implementations, reason = "shown by Conn")]
pub struct Postgres {
    /// There until the drop.
    client: Option<Client>,
    prepared: HashMap<String, Statement>,
}

impl Postgres {
    pub(super) fn connect(url: &str) -> Result<Self, DbError> {
        // The parser's error could repeat the password.
        let mut config: Config = url
            .parse()
            .map_err(|_| DbError::Fault("database_url is not a PostgreSQL address".into()))?;
        config
            .connect_timeout(CONNECT_TIMEOUT)
            .application_name("tidings");
        config
            .tcp_user_timeout(LOST_AFTER)
            .keepalives_idle(LOST_AFTER)
            .keepalives_interval(LOST_AFTER / 4);
        let client = match config.get_ssl_mode() {
            SslMode::Disable | SslMode::Prefer => config.connect(NoTls),
            _ => config.connect(tokio_postgres_rustls::MakeRustlsConnect::new(
                verified_tls()?
            )),
        };
        Ok(Self {
            client: Some(client.map_err(|e| failed(&e))?),
            prepared: HashMap::new(),
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.as_ref().is_none_or(Client::is_closed)
    }

    pub(super) fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<u64, DbError> {
        let statement = self.prepare(sql)?;
        self.client()?
            .execute(&statement, &by_reference(params))
            .map_err(|e| failed(&e))
    }

    pub(super) fn batch(&mut self, sql: &str) -> Result<(), DbError> {
        self.client()?.batch_execute(sql).map_err(|e| failed(&e))
    }

    pub(super) fn each(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(RowRef<'_>) -> Result<ControlFlow<()>, DbError>,
    ) -> Result<(), DbError> {
        let statement = self.prepare(sql)?;
        let mut rows = self
            .client()?
            .query_raw(&statement, params.iter().map(|p| p as &dyn ToSql))
            .map_err(|e| failed(&e))?;
        while let Some(row) = rows.next().map_err(|e| failed(&e))? {
            if each(RowRef::Postgres(&row))?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Runs one statement whose parameters are arrays, for many rows at once.
    pub(crate) fn execute_arrays(
        &mut self,
        sql: &str,
        arrays: &[&(dyn ToSql + Sync)],
    ) -> Result<(), DbError> {
        let statement = self.prepare(sql)?;
        self.client()?
            .execute(&statement, arrays)
            .map_err(|e| failed(&e))?;
        Ok(())
    }

    fn client(&mut self) -> Result<&mut Client, DbError> {
        self.client
            .as_mut()
            .ok_or_else(|| DbError::Unavailable("closed".into()))
    }

    fn prepare(&mut self, sql: &str) -> Result<Statement, DbError> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client()?.prepare(sql).map_err(|e| failed(&e))?;
        if self.prepared.len() >= CACHED_STATEMENTS {
            self.prepared.clear();
        }
        self.prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

impl Drop for Postgres {
    /// Closing waits for the server on a runtime of the client's own, which must not happen on a thread that drives tasks.
    fn drop(&mut self) {
        let client = self.client.take();
        if tokio::runtime::Handle::try_current().is_ok() {
            let _ = std::thread::Builder::new()
                .name("postgres-close".into())
                .spawn(move || drop(client));
        }
    }
}

fn verified_tls() -> Result<rustls::ClientConfig, DbError> {
    let roots = rustls::RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.into(),
    };
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| DbError::Fault(format!("TLS to the database: {e}")))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn by_reference<'a>(params: &'a [Value<'a>]) -> Vec<&'a (dyn ToSql + Sync)> {
    params.iter().map(|p| p as &(dyn ToSql + Sync)).collect()
}

impl ToSql for Value<'_> {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Int(value) => value.to_sql(ty, out),
            Value::Real(value) => value.to_sql(ty, out),
            Value::Text(value) => value.to_sql(ty, out),
        }
    }

    fn accepts(ty: &Type) -> bool {
        <i64 as ToSql>::accepts(ty) || <f64 as ToSql>::accepts(ty) || <&str as ToSql>::accepts(ty)
    }

    to_sql_checked!();
}

fn failed(e: &postgres::Error) -> DbError {
    let text = e
        .as_db_error()
        .map_or_else(|| e.to_string(), |db| db.message().to_owned());
    let Some(code) = e.code() else {
        return DbError::Unavailable(text);
    };
    match code.code().get(..2) {
        Some("23") => DbError::Conflict(text),
        Some("53") if *code != SqlState::TOO_MANY_CONNECTIONS => DbError::Full(text),
        Some("08" | "40" | "53" | "55" | "57") => DbError::Unavailable(text),
        _ => DbError::Fault(text),
    }
}
