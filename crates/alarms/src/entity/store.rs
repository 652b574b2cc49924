//! Entities in the database.

use std::collections::HashMap;

use tidings_core::clock::Timestamp;
use tidings_core::db::{Conn, DbError, RowRef, Value};

use super::{Entity, Filter, Place};
use crate::rows::{among, insert, limit, list as as_list, opt_text, opt_time, time};
use crate::topology::Topology;

const COLUMNS: &str = "id, entity_type, name, external_id, geo_lat, geo_lon, revenue_weight, sla_tier, \
                       embedding_provider, embedding_model, last_seen_at, created_at, updated_at";

/// Ids that one statement looks for.
const IDS: usize = 500;

/// The entity with this id.
pub fn get(conn: &mut Conn, tenant: i64, id: &str) -> Result<Option<Entity>, DbError> {
    Ok(many(conn, tenant, &[id])?.pop())
}

/// The entities with these ids that there are, each once, by id: two statements for 500 ids.
pub fn many(conn: &mut Conn, tenant: i64, ids: &[&str]) -> Result<Vec<Entity>, DbError> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    let mut all = Vec::new();
    for ids in ids.chunks(IDS) {
        let sql = format!(
            "SELECT {COLUMNS} FROM entities WHERE tenant = $1 AND id IN {} ORDER BY id",
            among(conn, 2)
        );
        let ids = as_list(ids);
        all.extend(conn.rows(&sql, &[tenant.into(), (&ids).into()], entity)?);
    }
    with_relations(conn, tenant, all)
}

/// Which of these ids are stored.
pub fn known(conn: &mut Conn, tenant: i64, ids: &[&str]) -> Result<Vec<String>, DbError> {
    let sql = format!(
        "SELECT id FROM entities WHERE tenant = $1 AND id IN {}",
        among(conn, 2)
    );
    let ids = as_list(ids);
    let id = |row: RowRef<'_>| Ok(row.text(0)?.to_owned());
    conn.rows(&sql, &[tenant.into(), (&ids).into()], id)
}

/// Entities after a place, newest first.
pub fn list(
    conn: &mut Conn,
    tenant: i64,
    filter: &Filter,
    after: Option<&Place>,
    most: usize,
) -> Result<Vec<Entity>, DbError> {
    let mut sql = format!("SELECT {COLUMNS} FROM entities WHERE tenant = $1");
    let mut values: Vec<Value<'_>> = vec![tenant.into()];
    for (column, wanted) in [
        ("entity_type", &filter.entity_type),
        ("external_id", &filter.external_id),
    ] {
        if let Some(wanted) = wanted {
            values.push(wanted.into());
            sql += &format!(" AND {column} = ${}", values.len());
        }
    }
    if let Some(Place(at, id)) = after {
        values.extend_from_slice(&[at.as_micros().into(), id.into()]);
        sql += &format!(
            " AND (created_at, id) < (${}, ${})",
            values.len() - 1,
            values.len()
        );
    }
    values.push(limit(most));
    sql += &format!(" ORDER BY created_at DESC, id DESC LIMIT ${}", values.len());
    let entities = conn.rows(&sql, &values, entity)?;
    with_relations(conn, tenant, entities)
}

/// When the entity with this id was first stored.
pub fn created_at(conn: &mut Conn, tenant: i64, id: &str) -> Result<Option<Timestamp>, DbError> {
    conn.row(
        "SELECT created_at FROM entities WHERE tenant = $1 AND id = $2",
        &[tenant.into(), id.into()],
        |row| time(&row, 0),
    )
}

/// Stores entities in place of those with their ids; each id stands once.
pub fn put(conn: &mut Conn, tenant: i64, entities: &[Entity]) -> Result<(), DbError> {
    const INTO: &str = "INSERT INTO entities (tenant, id, entity_type, name, external_id, geo_lat, geo_lon, revenue_weight, \
                        sla_tier, embedding_provider, embedding_model, last_seen_at, created_at, updated_at) VALUES";
    const TAIL: &str = "ON CONFLICT (tenant, id) DO UPDATE SET entity_type = excluded.entity_type, name = excluded.name, \
                        external_id = excluded.external_id, geo_lat = excluded.geo_lat, geo_lon = excluded.geo_lon, \
                        revenue_weight = excluded.revenue_weight, sla_tier = excluded.sla_tier, \
                        embedding_provider = excluded.embedding_provider, embedding_model = excluded.embedding_model, \
                        last_seen_at = excluded.last_seen_at, updated_at = excluded.updated_at";
    let mut values = Vec::with_capacity(entities.len() * 14);
    for e in entities {
        values.extend_from_slice(&[
            tenant.into(),
            (&e.id).into(),
            e.entity_type.as_ref().into(),
            (&e.name).into(),
            e.external_id.as_ref().into(),
            e.geo_lat.into(),
            e.geo_lon.into(),
            e.revenue_weight.into(),
            e.sla_tier.as_ref().into(),
            e.embedding_provider.as_ref().into(),
            e.embedding_model.as_ref().into(),
            e.last_seen_at.map(Timestamp::as_micros).into(),
            e.created_at.as_micros().into(),
            e.updated_at.as_micros().into(),
        ]);
    }
    insert(conn, (INTO, 14, TAIL), &values, |_| Ok(()))?;
    relate(conn, tenant, entities)
}

/// Stores the relations of entities in place of those that they had.
fn relate(conn: &mut Conn, tenant: i64, entities: &[Entity]) -> Result<(), DbError> {
    const INTO: &str =
        "INSERT INTO entity_relations (tenant, entity_id, kind, place, target) VALUES";
    let ids: Vec<&str> = entities.iter().map(|e| e.id.as_str()).collect();
    for ids in ids.chunks(IDS) {
        let sql = format!(
            "DELETE FROM entity_relations WHERE tenant = $1 AND entity_id IN {}",
            among(conn, 2)
        );
        conn.execute(&sql, &[tenant.into(), (&as_list(ids)).into()])?;
    }
    let mut values = Vec::new();
    for e in entities {
        for (kind, targets) in [("depends_on", &e.depends_on), ("part_of", &e.part_of)] {
            for (place, target) in (0_i64..).zip(targets) {
                values.extend_from_slice(&[
                    tenant.into(),
                    (&e.id).into(),
                    kind.into(),
                    place.into(),
                    target.into(),
                ]);
            }
        }
    }
    insert(conn, (INTO, 5, ""), &values, |_| Ok(()))?;
    touch(conn, tenant)
}

/// Removes an entity with its relations. Says whether it was there.
pub fn delete(conn: &mut Conn, tenant: i64, id: &str) -> Result<bool, DbError> {
    let of = [tenant.into(), id.into()];
    let gone = conn.execute("DELETE FROM entities WHERE tenant = $1 AND id = $2", &of)?;
    if gone == 0 {
        return Ok(false);
    }
    conn.execute(
        "DELETE FROM entity_relations WHERE tenant = $1 AND entity_id = $2",
        &of,
    )?;
    touch(conn, tenant)?;
    Ok(true)
}

/// Notes that relations have changed.
fn touch(conn: &mut Conn, tenant: i64) -> Result<(), DbError> {
    conn.execute(
        "INSERT INTO topology_versions (tenant, version) VALUES ($1, 1) \
         ON CONFLICT (tenant) DO UPDATE SET version = topology_versions.version + 1",
        &[tenant.into()],
    )?;
    Ok(())
}

/// Which version the tenant's relations are of.
pub fn topology_version(conn: &mut Conn, tenant: i64) -> Result<i64, DbError> {
    let version = conn.row(
        "SELECT version FROM topology_versions WHERE tenant = $1",
        &[tenant.into()],
        |row| row.int(0),
    )?;
    Ok(version.unwrap_or(0))
}

/// The tenant's relations: one statement.
pub fn topology(conn: &mut Conn, tenant: i64) -> Result<Topology, DbError> {
    let pairs = conn.rows(
        "SELECT entity_id, target FROM entity_relations WHERE tenant = $1 ORDER BY entity_id, kind, place",
        &[tenant.into()],
        |row| Ok((row.text(0)?.to_owned(), row.text(1)?.to_owned())),
    )?;
    let mut topology = Topology::default();
    for of_one in pairs.chunk_by(|a, b| a.0 == b.0) {
        let id = &of_one[0].0;
        let mut parents: Vec<String> = Vec::with_capacity(of_one.len());
        for (_, target) in of_one {
            // Nothing is learnt from an entity that depends on itself.
            if target != id && !parents.contains(target) {
                parents.push(target.clone());
            }
        }
        topology.set(id, parents);
    }
    Ok(topology)
}

fn entity(row: RowRef<'_>) -> Result<Entity, DbError> {
    Ok(Entity {
        id: row.text(0)?.to_owned(),
        entity_type: opt_text(&row, 1)?,
        name: row.text(2)?.to_owned(),
        external_id: opt_text(&row, 3)?,
        geo_lat: row.opt_real(4)?,
        geo_lon: row.opt_real(5)?,
        revenue_weight: row.opt_real(6)?,
        sla_tier: opt_text(&row, 7)?,
        embedding_provider: opt_text(&row, 8)?,
        embedding_model: opt_text(&row, 9)?,
        last_seen_at: opt_time(&row, 10)?,
        created_at: time(&row, 11)?,
        updated_at: time(&row, 12)?,
        depends_on: Vec::new(),
        part_of: Vec::new(),
    })
}

fn with_relations(
    conn: &mut Conn,
    tenant: i64,
    mut entities: Vec<Entity>,
) -> Result<Vec<Entity>, DbError> {
    let ids: Vec<String> = entities.iter().map(|e| e.id.clone()).collect();
    let places: HashMap<&str, usize> = ids.iter().map(String::as_str).zip(0..).collect();
    for ids in ids.chunks(IDS) {
        let sql = format!(
            "SELECT entity_id, kind, target FROM entity_relations WHERE tenant = $1 AND entity_id IN {} \
             ORDER BY entity_id, kind, place",
            among(conn, 2)
        );
        let ids = as_list(ids);
        conn.each(&sql, &[tenant.into(), (&ids).into()], |row| {
            let entity = places
                .get(row.text(0)?)
                .and_then(|at| entities.get_mut(*at));
            if let Some(entity) = entity {
                let target = row.text(2)?.to_owned();
                match row.text(1)? {
                    "part_of" => entity.part_of.push(target),
                    _ => entity.depends_on.push(target),
                }
            }
            Ok(std::ops::ControlFlow::Continue(()))
        })?;
    }
    Ok(entities)
}
