//! Lists of alarms: filters, pages, totals.

use std::fmt::Write as _;
use std::str::FromStr;

use tidings_core::clock::Timestamp;
use tidings_core::db::{Conn, DbError, Value};
use tidings_core::tenant::Tenant;

use super::{Alarm, Condition, OperatorState, store};
use crate::{Alarms, Error, Severity};

/// Which alarms; all that are set must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Raised or cleared.
    pub condition: Option<Condition>,
    /// So bad.
    pub severity: Option<Severity>,
    /// What people made of them.
    pub operator_state: Option<OperatorState>,
    /// Of this resource.
    pub entity_id: Option<String>,
    /// Of this kind.
    pub alarm_type: Option<String>,
    /// With an event time from here on.
    pub since: Option<Timestamp>,
    /// With an event time before this.
    pub until: Option<Timestamp>,
    /// With this text in what names them, in any case.
    pub search: Option<String>,
    /// Not those that are put aside.
    pub is_unshelved: bool,
    /// Seen by somebody, whether put aside since or not; or not seen.
    pub is_acknowledged: Option<bool>,
}

impl Filter {
    /// What a person watches: raised, and not put aside.
    #[must_use]
    pub fn live() -> Self {
        Self {
            condition: Some(Condition::Raised),
            is_unshelved: true,
            ..Self::default()
        }
    }

    /// Whether the counts by the three axes answer how many there are.
    fn is_counted(&self) -> bool {
        let Self {
            condition: _,
            severity: _,
            operator_state: _,
            is_unshelved: _,
            is_acknowledged,
            entity_id,
            alarm_type,
            since,
            until,
            search,
        } = self;
        entity_id.is_none()
            && alarm_type.is_none()
            && since.is_none()
            && until.is_none()
            && search.is_none()
            && *is_acknowledged != Some(true)
    }
}

/// Where a page ended: after an alarm of this event time and id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct After {
    event_at: Timestamp,
    id: String,
}

/// The text is no cursor of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this list")]
pub struct InvalidAfter;

impl std::fmt::Display for After {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}_{}", self.event_at.as_micros(), self.id)
    }
}

impl FromStr for After {
    type Err = InvalidAfter;

    fn from_str(text: &str) -> Result<Self, InvalidAfter> {
        let (at, id) = text.split_once('_').ok_or(InvalidAfter)?;
        let is_id = !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_graphic());
        let id = Some(id.to_owned()).filter(|_| is_id);
        Ok(Self {
            event_at: at
                .parse()
                .map(Timestamp::from_micros)
                .map_err(|_| InvalidAfter)?,
            id: id.ok_or(InvalidAfter)?,
        })
    }
}

/// A part of a list, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The alarms.
    pub alarms: Vec<Alarm>,
    /// Where to go on; none at the end.
    pub next: Option<After>,
    /// How many the filter lets through, on all pages.
    pub total: u64,
}

/// Which part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// After where another page ended; none for the first.
    After(Option<After>),
    /// After so many.
    Offset(u64),
}

impl Alarms {
    /// One alarm.
    pub async fn alarm(&self, tenant: &Tenant, id: &str) -> Result<Alarm, Error> {
        let number = self.log.tenant(tenant).await?.number;
        let wanted = id.to_owned();
        let read = self
            .log
            .db()
            .read(move |conn| store::get(conn, number, &wanted));
        read.await?.ok_or_else(|| Error::NotFound {
            what: "alarm",
            id: id.to_owned(),
        })
    }

    /// A page of alarms, newest first.
    pub async fn alarms(
        &self,
        tenant: &Tenant,
        filter: Filter,
        from: Start,
        limit: usize,
    ) -> Result<Page, Error> {
        let number = self.log.tenant(tenant).await?.number;
        let read = move |conn: &mut Conn| page(conn, number, &filter, &from, limit);
        Ok(self.log.db().read(read).await?)
    }
}

/// Conditions of a statement, and their values.
struct Conditions<'a> {
    sql: String,
    params: Vec<Value<'a>>,
}

impl<'a> Conditions<'a> {
    fn of(tenant: i64) -> Self {
        Self {
            sql: "tenant = $1".into(),
            params: vec![tenant.into()],
        }
    }

    /// Adds one; `?` stands for the value.
    fn and(&mut self, sql: &str, value: impl Into<Value<'a>>) {
        self.params.push(value.into());
        let hole = format!("${}", self.params.len());
        let _ = write!(self.sql, " AND {}", sql.replace('?', &hole));
    }

    fn axes(&mut self, filter: &Filter) {
        if let Some(condition) = filter.condition {
            self.and("condition = ?", condition.as_str());
        }
        if let Some(severity) = filter.severity {
            self.and("severity = ?", severity.as_str());
        }
    }
}

/// A page, and how many there are in all.
pub fn page(
    conn: &mut Conn,
    tenant: i64,
    filter: &Filter,
    from: &Start,
    limit: usize,
) -> Result<Page, DbError> {
    let pattern = filter.search.as_deref().map(like);
    let mut conditions = Conditions::of(tenant);
    narrow(&mut conditions, filter, pattern.as_deref());
    let total = total(conn, tenant, filter, &conditions)?;
    let mut offset = 0;
    match from {
        Start::After(Some(after)) => {
            conditions.and("event_at <= ?", after.event_at.as_micros());
            conditions.and("(event_at, id) < (?", after.event_at.as_micros());
            conditions.params.push((&after.id).into());
            let _ = write!(conditions.sql, ", ${})", conditions.params.len());
        }
        Start::After(None) => {}
        Start::Offset(skipped) => offset = i64::try_from(*skipped).unwrap_or(i64::MAX),
    }
    let wanted = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    conditions.params.push(wanted.into());
    conditions.params.push(offset.into());
    let sql = format!(
        "{} LIMIT ${} OFFSET ${}",
        select(&conditions),
        conditions.params.len() - 1,
        conditions.params.len(),
    );
    let mut alarms = conn.rows(&sql, &conditions.params, store::read)?;
    let has_more = alarms.len() > limit;
    alarms.truncate(limit);
    let last = alarms.last().filter(|_| has_more);
    let next = last.map(|alarm| After {
        event_at: alarm.event_at(),
        id: alarm.id.clone(),
    });
    Ok(Page {
        next,
        alarms,
        total: u64::try_from(total).unwrap_or(0),
    })
}

/// The statement of a first page without its limit, and its values: for who asks how the database goes about it.
#[must_use]
pub fn statement(tenant: i64, filter: &Filter) -> (String, Vec<Value<'_>>) {
    let mut conditions = Conditions::of(tenant);
    narrow(&mut conditions, filter, None);
    let sql = format!("{} LIMIT 101", select(&conditions));
    (sql, conditions.params)
}

fn select(conditions: &Conditions<'_>) -> String {
    format!(
        "SELECT {} FROM alarms WHERE {} ORDER BY event_at DESC, id DESC",
        store::COLUMNS,
        conditions.sql
    )
}

/// How many the filter lets through. Those that somebody has touched are few: they are counted, and taken from the rest.
fn total(
    conn: &mut Conn,
    tenant: i64,
    filter: &Filter,
    conditions: &Conditions<'_>,
) -> Result<i64, DbError> {
    let mut count = |conditions: &Conditions<'_>| {
        let sql = format!("SELECT COUNT(*) FROM alarms WHERE {}", conditions.sql);
        let count = conn.row(&sql, &conditions.params, |row| row.int(0))?;
        Ok::<_, DbError>(count.unwrap_or(0))
    };
    if !filter.is_counted() {
        return count(conditions);
    }
    let mut seen = 0;
    if filter.is_acknowledged == Some(false) {
        let seen_too = Filter {
            is_acknowledged: Some(true),
            ..filter.clone()
        };
        let mut conditions = Conditions::of(tenant);
        narrow(&mut conditions, &seen_too, None);
        seen = count(&conditions)?;
    }
    Ok(counted(conn, tenant, filter)? - seen)
}

fn narrow<'a>(conditions: &mut Conditions<'a>, filter: &'a Filter, pattern: Option<&'a str>) {
    conditions.axes(filter);
    match filter.operator_state {
        Some(OperatorState::None) => conditions.sql.push_str(" AND operator_state IS NULL"),
        Some(state) => conditions.and("operator_state = ?", state.as_str()),
        None => {}
    }
    if filter.is_unshelved {
        conditions
            .sql
            .push_str(" AND (operator_state IS NULL OR operator_state = 'acknowledged')");
    }
    match filter.is_acknowledged {
        Some(true) => conditions
            .sql
            .push_str(" AND operator_state IS NOT NULL AND acknowledged_at IS NOT NULL"),
        Some(false) => conditions.sql.push_str(" AND acknowledged_at IS NULL"),
        None => {}
    }
    if let Some(entity_id) = &filter.entity_id {
        conditions.and("entity_id = ?", entity_id);
    }
    if let Some(alarm_type) = &filter.alarm_type {
        conditions.and("alarm_type = ?", alarm_type);
    }
    if let Some(since) = filter.since {
        conditions.and("event_at >= ?", since.as_micros());
    }
    if let Some(until) = filter.until {
        conditions.and("event_at < ?", until.as_micros());
    }
    if let Some(pattern) = pattern {
        conditions.and("words LIKE ? ESCAPE '!'", pattern);
    }
}

/// A text anywhere, in lower case.
fn like(text: &str) -> String {
    let text = text.to_lowercase().replace('!', "!!");
    let text = text.replace('%', "!%").replace('_', "!_");
    format!("%{text}%")
}

/// How many stand where the filter's axes say.
fn counted(conn: &mut Conn, tenant: i64, filter: &Filter) -> Result<i64, DbError> {
    let mut conditions = Conditions::of(tenant);
    conditions.axes(filter);
    if let Some(state) = filter.operator_state {
        conditions.and("operator_state = ?", state.as_str());
    }
    if filter.is_unshelved {
        conditions.sql.push_str(" AND operator_state <> 'shelved'");
    }
    let sql = format!(
        "SELECT CAST(COALESCE(SUM(alarms), 0) AS BIGINT) FROM alarm_counts WHERE {}",
        conditions.sql
    );
    Ok(conn
        .row(&sql, &conditions.params, |row| row.int(0))?
        .unwrap_or(0))
}

/// How many raised alarms of each severity there are that are not put aside.
pub fn open_by_severity(conn: &mut Conn, tenant: i64) -> Result<Vec<(Severity, u64)>, DbError> {
    let sql = "SELECT severity, CAST(SUM(alarms) AS BIGINT) FROM alarm_counts WHERE tenant = $1 \
               AND condition = 'raised' AND operator_state <> 'shelved' GROUP BY severity";
    let rows = conn.rows(sql, &[tenant.into()], |row| {
        Ok((
            row.text(0)?.parse().ok(),
            u64::try_from(row.int(1)?).unwrap_or(0),
        ))
    })?;
    Ok(rows
        .into_iter()
        .filter_map(|(s, n)| Some((s?, n)))
        .collect())
}
