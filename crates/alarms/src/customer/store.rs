//! The rows of customers, of what they were told, and of which events tell of them.

use std::collections::HashMap;
use std::ops::ControlFlow;

use tidings_core::clock::Timestamp;
use tidings_core::db::{Conn, DbError, RowRef, Value};

use super::{Customer, Place, Record};
use crate::rows::{among, insert, limit, list as as_list};

const COLUMNS: &str = "id, name, churn_risk, consent_proactive_comms, created_at, updated_at";
/// Ids that one statement looks for.
const IDS: usize = 500;

fn read(row: RowRef<'_>) -> Result<Customer, DbError> {
    Ok(Customer {
        id: row.text(0)?.to_owned(),
        name: row.opt_text(1)?.map(str::to_owned),
        entity_ids: Vec::new(),
        churn_risk: row.opt_real(2)?,
        consents_to_care: row.int(3)? != 0,
        created_at: Timestamp::from_micros(row.int(4)?),
        updated_at: Timestamp::from_micros(row.int(5)?),
    })
}

/// One of a tenant's customers.
pub fn get(conn: &mut Conn, tenant: i64, id: &str) -> Result<Option<Customer>, DbError> {
    Ok(many(conn, tenant, &[id])?.pop())
}

/// Those with these ids that there are, each once, by id: two statements for 500 ids.
pub fn many(conn: &mut Conn, tenant: i64, ids: &[&str]) -> Result<Vec<Customer>, DbError> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    let mut all = Vec::new();
    for ids in ids.chunks(IDS) {
        let sql = format!(
            "SELECT {COLUMNS} FROM customers WHERE tenant = $1 AND id IN {} ORDER BY id",
            among(conn, 2)
        );
        all.extend(conn.rows(&sql, &[tenant.into(), (&as_list(ids)).into()], read)?);
    }
    with_entities(conn, tenant, all)
}

/// Customers after a place, newest first.
pub fn list(
    conn: &mut Conn,
    tenant: i64,
    after: Option<&Place>,
    most: usize,
) -> Result<Vec<Customer>, DbError> {
    let mut sql = format!("SELECT {COLUMNS} FROM customers WHERE tenant = $1");
    let mut values: Vec<Value<'_>> = vec![tenant.into()];
    if let Some(Place(at, id)) = after {
        values.extend::<[Value<'_>; 2]>([at.as_micros().into(), id.into()]);
        sql += " AND (created_at, id) < ($2, $3)";
    }
    values.push(limit(most));
    sql += &format!(" ORDER BY created_at DESC, id DESC LIMIT ${}", values.len());
    let customers = conn.rows(&sql, &values, read)?;
    with_entities(conn, tenant, customers)
}

/// The ids of customers whom any of these entities serves, each once, by id.
pub fn ids_served_by(
    conn: &mut Conn,
    tenant: i64,
    entity_ids: &[&str],
) -> Result<Vec<String>, DbError> {
    let mut ids: Vec<String> = Vec::new();
    for entity_ids in entity_ids.chunks(IDS) {
        let sql = format!(
            "SELECT DISTINCT customer_id FROM customer_entities WHERE tenant = $1 AND entity_id IN {}",
            among(conn, 2)
        );
        let found = conn.rows(
            &sql,
            &[tenant.into(), (&as_list(entity_ids)).into()],
            |row| Ok(row.text(0)?.to_owned()),
        );
        ids.extend(found?);
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// Customers whom any of these entities serves, by id.
pub fn served_by(
    conn: &mut Conn,
    tenant: i64,
    entity_ids: &[&str],
) -> Result<Vec<Customer>, DbError> {
    let ids = ids_served_by(conn, tenant, entity_ids)?;
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    many(conn, tenant, &ids)
}

fn with_entities(
    conn: &mut Conn,
    tenant: i64,
    mut customers: Vec<Customer>,
) -> Result<Vec<Customer>, DbError> {
    let ids: Vec<String> = customers.iter().map(|c| c.id.clone()).collect();
    let places: HashMap<&str, usize> = ids.iter().map(String::as_str).zip(0..).collect();
    for ids in ids.chunks(IDS) {
        let sql = format!(
            "SELECT customer_id, entity_id FROM customer_entities WHERE tenant = $1 AND customer_id IN {} \
             ORDER BY customer_id, place",
            among(conn, 2)
        );
        conn.each(&sql, &[tenant.into(), (&as_list(ids)).into()], |row| {
            let at = places.get(row.text(0)?);
            if let Some(customer) = at.and_then(|at| customers.get_mut(*at)) {
                customer.entity_ids.push(row.text(1)?.to_owned());
            }
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(customers)
}

/// Stores a customer in place of the one with their id.
pub(super) fn put(conn: &mut Conn, tenant: i64, customer: &Customer) -> Result<(), DbError> {
    let c = customer;
    conn.execute(
        "INSERT INTO customers (tenant, id, name, churn_risk, consent_proactive_comms, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (tenant, id) DO UPDATE SET name = excluded.name, \
         churn_risk = excluded.churn_risk, consent_proactive_comms = excluded.consent_proactive_comms, \
         updated_at = excluded.updated_at",
        &[
            tenant.into(),
            (&c.id).into(),
            c.name.as_ref().into(),
            c.churn_risk.into(),
            i64::from(c.consents_to_care).into(),
            c.created_at.as_micros().into(),
            c.updated_at.as_micros().into(),
        ],
    )?;
    conn.execute(
        "DELETE FROM customer_entities WHERE tenant = $1 AND customer_id = $2",
        &[tenant.into(), (&c.id).into()],
    )?;
    const INTO: &str =
        "INSERT INTO customer_entities (tenant, customer_id, place, entity_id) VALUES";
    let mut values: Vec<Value<'_>> = Vec::with_capacity(c.entity_ids.len() * 4);
    for (place, entity) in (0_i64..).zip(&c.entity_ids) {
        values.extend::<[Value<'_>; 4]>([
            tenant.into(),
            (&c.id).into(),
            place.into(),
            entity.into(),
        ]);
    }
    insert(conn, (INTO, 4, ""), &values, |_| Ok(()))
}

/// Keeps what customers were told.
pub(super) fn add_records(conn: &mut Conn, tenant: i64, records: &[Record]) -> Result<(), DbError> {
    const INTO: &str = "INSERT INTO care_records (tenant, id, customer_id, incident_id, channel, status, message_content, \
                        created_at) VALUES";
    let mut values: Vec<Value<'_>> = Vec::with_capacity(records.len() * 8);
    for r in records {
        values.extend::<[Value<'_>; 8]>([
            tenant.into(),
            (&r.id).into(),
            (&r.customer_id).into(),
            r.incident_id.as_ref().into(),
            Value::Text(super::care::CHANNEL),
            Value::Text(super::care::SENT),
            (&*r.message).into(),
            r.created_at.as_micros().into(),
        ]);
    }
    insert(conn, (INTO, 8, ""), &values, |_| Ok(()))
}

/// Keeps which events tell of which customers.
pub(super) fn add_events(
    conn: &mut Conn,
    tenant: i64,
    events: &[(String, String)],
) -> Result<(), DbError> {
    const INTO: &str = "INSERT INTO customer_events (tenant, customer_id, event_id) VALUES";
    let mut values: Vec<Value<'_>> = Vec::with_capacity(events.len() * 3);
    for (customer, event) in events {
        values.extend::<[Value<'_>; 3]>([tenant.into(), customer.into(), event.into()]);
    }
    insert(conn, (INTO, 3, ""), &values, |_| Ok(()))
}

/// The ids of the events that tell of a customer.
pub(super) fn events_of(
    conn: &mut Conn,
    tenant: i64,
    customer_id: &str,
) -> Result<Vec<String>, DbError> {
    let sql = "SELECT event_id FROM customer_events WHERE tenant = $1 AND customer_id = $2 ORDER BY event_id";
    conn.rows(sql, &[tenant.into(), customer_id.into()], |row| {
        Ok(row.text(0)?.to_owned())
    })
}

/// Removes a customer, and from what stays all that is theirs. Says how many records were kept without it; none where there
/// is no such customer.
pub(super) fn erase(
    conn: &mut Conn,
    tenant: i64,
    customer_id: &str,
) -> Result<Option<u64>, DbError> {
    let of = [tenant.into(), customer_id.into()];
    let gone = conn.execute("DELETE FROM customers WHERE tenant = $1 AND id = $2", &of)?;
    if gone == 0 {
        return Ok(None);
    }
    for table in ["customer_entities", "customer_events"] {
        conn.execute(
            &format!("DELETE FROM {table} WHERE tenant = $1 AND customer_id = $2"),
            &of,
        )?;
    }
    let records = conn.execute(
        "UPDATE care_records SET customer_id = NULL, message_content = NULL, status = 'erased' \
         WHERE tenant = $1 AND customer_id = $2",
        &of,
    )?;
    Ok(Some(records))
}
