//! Who and what an incident affects.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidings_core::db::{Conn, DbError};
use tidings_core::tenant::Tenant;

use super::Incident;
use crate::customer::{self, Customer};
use crate::entity::{self, Entity};
use crate::{Alarms, Error};

/// How many steps below an affected entity others count as affected.
pub const DEPTH: usize = 5;
/// How many entities one impact holds at most: what it costs is bounded, whatever the network.
pub const NODES: usize = 1_000;
/// Above this a customer is likely to leave.
pub const HIGH_CHURN_RISK: f64 = 0.70;

/// What is affected.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Impact {
    /// The entities of the incident and what hangs on them, nearest first.
    pub entity_ids: Vec<String>,
    /// Whom they serve, by id.
    pub customers: Vec<Customer>,
    /// The sum of their revenue weights; none where none has one.
    pub revenue_weight: Option<f64>,
    /// How many of each SLA tier.
    pub sla_tiers: BTreeMap<String, u64>,
}

impl Impact {
    /// Adds up what is known of the entities.
    #[must_use]
    pub fn of(entity_ids: Vec<String>, entities: &[Entity], customers: Vec<Customer>) -> Self {
        let weights = entities.iter().filter_map(|e| e.revenue_weight);
        let mut sla_tiers = BTreeMap::new();
        for tier in entities.iter().filter_map(|e| e.sla_tier.as_ref()) {
            *sla_tiers.entry(tier.clone()).or_default() += 1;
        }
        Self {
            entity_ids,
            customers,
            revenue_weight: weights.reduce(|a, b| a + b),
            sla_tiers,
        }
    }

    /// The outside form.
    #[must_use]
    pub fn json(&self) -> Value {
        let customers: Vec<_> = self.customers.iter().map(|c| c.id.as_str()).collect();
        json!({
            "entities": self.entity_ids, "customers": customers, "revenue_weight": self.revenue_weight,
            "sla_tiers": self.sla_tiers,
        })
    }

    /// Customers who are likely to leave, most likely first.
    #[must_use]
    pub fn at_risk(&self) -> Vec<&Customer> {
        let risk = |c: &&Customer| c.churn_risk.is_some_and(|risk| risk > HIGH_CHURN_RISK);
        let mut at_risk: Vec<_> = self.customers.iter().filter(risk).collect();
        at_risk.sort_by(|a, b| {
            let order = b.churn_risk.partial_cmp(&a.churn_risk);
            order
                .unwrap_or(std::cmp::Ordering::Equal)
                .then_with(|| a.id.cmp(&b.id))
        });
        at_risk
    }
}

/// Reads what is known of affected entities: a constant number of statements for each 500 of them.
pub(crate) fn read(
    conn: &mut Conn,
    tenant: i64,
    entity_ids: Vec<String>,
) -> Result<Impact, DbError> {
    let ids: Vec<&str> = entity_ids.iter().map(String::as_str).collect();
    let entities = entity::store::many(conn, tenant, &ids)?;
    let customers = customer::store::served_by(conn, tenant, &ids)?;
    Ok(Impact::of(entity_ids, &entities, customers))
}

impl Alarms {
    /// Whom and what an incident affects.
    pub async fn incident_impact(&self, tenant: &Tenant, id: &str) -> Result<Impact, Error> {
        let incident = self.incident(tenant, id).await?;
        self.impact_of(tenant, &incident).await
    }

    pub(crate) async fn impact_of(
        &self,
        tenant: &Tenant,
        incident: &Incident,
    ) -> Result<Impact, Error> {
        let topology = self.topology(tenant).await?;
        let number = self.log.tenant(tenant).await?.number;
        let places = self.places_of(tenant, incident).await?;
        let below = topology.downstream(places.iter().map(String::as_str), DEPTH, NODES);
        let known = below.into_iter().map(str::to_owned).collect();
        let read = move |conn: &mut Conn| read(conn, number, known);
        Ok(self.log.db().read(read).await?)
    }

    /// The entities that an incident is about; where only another system's id is known, those that bear it.
    pub(crate) async fn places_of(
        &self,
        tenant: &Tenant,
        incident: &Incident,
    ) -> Result<Vec<String>, Error> {
        let places: Vec<String> = incident.places().into_iter().map(str::to_owned).collect();
        let Some(external_id) = incident
            .entity_external_id
            .clone()
            .filter(|_| places.is_empty())
        else {
            return Ok(places);
        };
        let number = self.log.tenant(tenant).await?.number;
        let filter = entity::Filter {
            external_id: Some(external_id),
            entity_type: None,
        };
        let find = move |conn: &mut Conn| entity::store::list(conn, number, &filter, None, NODES);
        let found = self.log.db().read(find).await?;
        Ok(found.into_iter().map(|e| e.id).collect())
    }
}
