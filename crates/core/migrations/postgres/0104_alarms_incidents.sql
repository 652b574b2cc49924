-- Incidents. entity_ids is a JSON list; words is what a search looks through, in lower case; severity_rank and status_rank
-- sort them. At most one incident a cluster.
CREATE TABLE incidents (
    tenant BIGINT NOT NULL,
    id TEXT NOT NULL,
    title TEXT NOT NULL,
    severity TEXT NOT NULL,
    severity_rank BIGINT NOT NULL,
    severity_reason TEXT,
    is_emergency BIGINT NOT NULL,
    status TEXT NOT NULL,
    status_rank BIGINT NOT NULL,
    entity_id TEXT,
    entity_external_id TEXT,
    entity_ids TEXT NOT NULL,
    cluster_id TEXT,
    root_entity_id TEXT,
    confidence DOUBLE PRECISION,
    merged_into TEXT,
    alarm_count BIGINT NOT NULL,
    resolution_summary TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    acknowledged_by TEXT,
    acknowledged_at BIGINT,
    sitrep_approved_by TEXT,
    sitrep_approved_at BIGINT,
    action_approved_by TEXT,
    action_approved_at BIGINT,
    resolved_by TEXT,
    resolved_at BIGINT,
    closed_by TEXT,
    closed_at BIGINT,
    words TEXT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX incidents_by_time ON incidents (tenant, created_at, id);
CREATE INDEX incidents_by_status ON incidents (tenant, status, created_at);
CREATE INDEX incidents_by_title ON incidents (tenant, title);
CREATE UNIQUE INDEX incidents_by_cluster ON incidents (tenant, cluster_id) WHERE cluster_id IS NOT NULL;

-- The alarms that an incident is about.
CREATE TABLE incident_alarms (
    tenant BIGINT NOT NULL,
    incident_id TEXT NOT NULL,
    alarm_id TEXT NOT NULL,
    PRIMARY KEY (tenant, incident_id, alarm_id)
);
CREATE INDEX incident_alarms_by_alarm ON incident_alarms (tenant, alarm_id);

-- What happened to an incident, in order: its timeline, and where action is set, its audit trail. Rows are only added.
CREATE TABLE incident_entries (
    tenant BIGINT NOT NULL,
    incident_id TEXT NOT NULL,
    n BIGINT NOT NULL,
    at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    action TEXT,
    action_type TEXT NOT NULL,
    actor TEXT NOT NULL,
    details TEXT NOT NULL,
    trace_id TEXT,
    PRIMARY KEY (tenant, incident_id, n)
);

-- Whom the network serves, and what they have consented to.
CREATE TABLE customers (
    tenant BIGINT NOT NULL,
    id TEXT NOT NULL,
    name TEXT,
    churn_risk DOUBLE PRECISION,
    consent_proactive_comms BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX customers_by_time ON customers (tenant, created_at, id);

CREATE TABLE customer_entities (
    tenant BIGINT NOT NULL,
    customer_id TEXT NOT NULL,
    place BIGINT NOT NULL,
    entity_id TEXT NOT NULL,
    PRIMARY KEY (tenant, customer_id, place)
);
CREATE INDEX customer_entities_by_entity ON customer_entities (tenant, entity_id, customer_id);

-- What customers were told. After an erasure it holds nothing of the person.
CREATE TABLE care_records (
    tenant BIGINT NOT NULL,
    id TEXT NOT NULL,
    customer_id TEXT,
    incident_id TEXT,
    channel TEXT NOT NULL,
    status TEXT NOT NULL,
    message_content TEXT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX care_records_by_customer ON care_records (tenant, customer_id);

-- Which events of the log tell something of a customer: an erasure takes it out of them.
CREATE TABLE customer_events (
    tenant BIGINT NOT NULL,
    customer_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    PRIMARY KEY (tenant, customer_id, event_id)
);
