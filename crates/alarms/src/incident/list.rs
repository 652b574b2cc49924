//! Pages of incidents, filtered and sorted.

use std::str::FromStr;

use tidings_core::db::{Conn, DbError, Value};
use tidings_core::tenant::Tenant;

use super::{Incident, Severity, Status, store};
use crate::{Alarms, Error};

/// What a list is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sort {
    /// When it was opened.
    #[default]
    CreatedAt,
    /// When it last changed.
    UpdatedAt,
    /// How bad.
    Severity,
    /// How far.
    Status,
    /// By its title.
    Title,
    /// How many alarms.
    AlarmCount,
}

/// Not something to sort by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sorts by created_at, updated_at, severity, priority, status, title or alarm_count")]
pub struct UnknownSort;

impl FromStr for Sort {
    type Err = UnknownSort;

    fn from_str(word: &str) -> Result<Self, UnknownSort> {
        Ok(match word {
            "created_at" => Self::CreatedAt,
            "updated_at" => Self::UpdatedAt,
            "severity" | "priority" => Self::Severity,
            "status" => Self::Status,
            "title" => Self::Title,
            "alarm_count" => Self::AlarmCount,
            _ => return Err(UnknownSort),
        })
    }
}

/// Which incidents, in which order, which page of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// In one of these statuses; empty is any.
    pub statuses: Vec<Status>,
    /// In none of these.
    pub without: Vec<Status>,
    /// Of one of these severities; empty is any.
    pub severities: Vec<Severity>,
    /// Whose id, title, entity or cluster has this in it, in any case.
    pub search: Option<String>,
    /// In which order.
    pub sort: Sort,
    /// The least first.
    pub is_ascending: bool,
    /// From 1.
    pub page: usize,
    /// On one page.
    pub page_size: usize,
}

/// A page.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Those on the page.
    pub incidents: Vec<Incident>,
    /// How many there are on all pages.
    pub total: u64,
}

impl Alarms {
    /// A page of incidents.
    pub async fn incidents(&self, tenant: &Tenant, query: Query) -> Result<Found, Error> {
        let number = self.log.tenant(tenant).await?.number;
        let read = move |conn: &mut Conn| find(conn, number, &query);
        Ok(self.log.db().read(read).await?)
    }
}

/// Three statements, whatever the page.
fn find(conn: &mut Conn, tenant: i64, query: &Query) -> Result<Found, DbError> {
    let statuses = |of: &[Status]| of.iter().map(|s| s.as_str()).collect::<Vec<_>>();
    let severities: Vec<_> = query.severities.iter().map(|s| s.as_str()).collect();
    let search = query.search.as_deref().map(pattern);
    let mut which = String::from("tenant = $1");
    let mut params: Vec<Value<'_>> = vec![tenant.into()];
    for (column, words) in [
        ("status IN", statuses(&query.statuses)),
        ("status NOT IN", statuses(&query.without)),
        ("severity IN", severities),
    ] {
        if words.is_empty() {
            continue;
        }
        let from = params.len() + 1;
        let holes: Vec<_> = (from..from + words.len())
            .map(|n| format!("${n}"))
            .collect();
        which.push_str(&format!(" AND {column} ({})", holes.join(", ")));
        params.extend(words.into_iter().map(Value::Text));
    }
    if let Some(search) = &search {
        params.push(search.into());
        which.push_str(&format!(" AND words LIKE ${} ESCAPE '!'", params.len()));
    }
    let count = format!("SELECT COUNT(*) FROM incidents WHERE {which}");
    let total = conn.row(&count, &params, |row| row.int(0))?.unwrap_or(0);
    let order = if query.is_ascending { "ASC" } else { "DESC" };
    let column = match query.sort {
        Sort::CreatedAt => "created_at",
        Sort::UpdatedAt => "updated_at",
        Sort::Severity => "severity_rank",
        Sort::Status => "status_rank",
        Sort::Title => "title",
        Sort::AlarmCount => "alarm_count",
    };
    let n = params.len();
    let sql = format!(
        "SELECT {} FROM incidents WHERE {which} ORDER BY {column} {order}, created_at DESC, id DESC LIMIT ${} OFFSET ${}",
        store::COLUMNS,
        n + 1,
        n + 2
    );
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    params.push(number(query.page_size).into());
    params.push(number(query.page.saturating_sub(1).saturating_mul(query.page_size)).into());
    let mut incidents = conn.rows(&sql, &params, store::read)?;
    let ids: Vec<&str> = incidents.iter().map(|i| i.id.as_str()).collect();
    let mut alarms = store::alarms_of(conn, tenant, &ids)?;
    for incident in &mut incidents {
        incident.alarm_ids = alarms.remove(&incident.id).unwrap_or_default();
    }
    Ok(Found {
        incidents,
        total: u64::try_from(total).unwrap_or(0),
    })
}

/// Text that is looked for anywhere, taken as it is.
fn pattern(text: &str) -> String {
    let mut pattern = String::from("%");
    for c in text.to_lowercase().chars() {
        if matches!(c, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}
