-- The alarms of each tenant: one row a (resource, alarm type, specific problem), whose digest with the tenant's is the id.
-- event_at: raised_at, or cleared_at where only a clear is known. operator_state is NULL for none, so that its index holds
-- only what somebody has touched.
CREATE TABLE alarms (
    tenant BIGINT NOT NULL,
    id TEXT NOT NULL,
    entity_id TEXT NOT NULL,
    entity_external_id TEXT,
    alarm_type TEXT NOT NULL,
    specific_problem TEXT,
    probable_cause TEXT,
    severity TEXT NOT NULL,
    condition TEXT NOT NULL,
    operator_state TEXT,
    acknowledged_by TEXT,
    acknowledged_at BIGINT,
    shelved_by TEXT,
    shelve_reason TEXT,
    shelve_expires_at BIGINT,
    event_at BIGINT NOT NULL,
    raised_at BIGINT,
    cleared_at BIGINT,
    first_raised_at BIGINT,
    updated_at BIGINT NOT NULL,
    raise_count BIGINT NOT NULL,
    flap_count BIGINT NOT NULL,
    flaps TEXT,
    cluster_id TEXT,
    source_system TEXT NOT NULL,
    attributes TEXT NOT NULL,
    ends_at BIGINT,
    may_return BIGINT NOT NULL,
    words TEXT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX alarms_by_time ON alarms (tenant, event_at, id);
CREATE INDEX alarms_by_condition ON alarms (tenant, condition, event_at, id);
CREATE INDEX alarms_by_severity ON alarms (tenant, condition, severity, event_at, id);
CREATE INDEX alarms_by_operator ON alarms (tenant, operator_state, event_at, id) WHERE operator_state IS NOT NULL;
CREATE INDEX alarms_by_entity ON alarms (tenant, entity_id, event_at, id);
CREATE INDEX alarms_by_type ON alarms (tenant, alarm_type, event_at, id);
CREATE INDEX alarms_by_end ON alarms (ends_at) WHERE ends_at IS NOT NULL;
CREATE INDEX alarms_by_shelving ON alarms (shelve_expires_at) WHERE shelve_expires_at IS NOT NULL;

-- How many alarms of a tenant stand where on the three axes: the total of a list costs no count.
CREATE TABLE alarm_counts (
    tenant BIGINT NOT NULL,
    condition TEXT NOT NULL,
    severity TEXT NOT NULL,
    operator_state TEXT NOT NULL,
    alarms BIGINT NOT NULL,
    PRIMARY KEY (tenant, condition, severity, operator_state)
);

-- Every accepted raise and clear. The key is its time in hex, then a digest of what makes it the same occurrence.
CREATE TABLE alarm_occurrences (
    tenant BIGINT NOT NULL,
    key TEXT NOT NULL,
    event_id TEXT NOT NULL,
    alarm_id TEXT NOT NULL,
    is_raise BIGINT NOT NULL,
    severity TEXT NOT NULL,
    raised_at BIGINT NOT NULL,
    arrived_at BIGINT NOT NULL,
    source_key TEXT,
    cluster_id TEXT,
    PRIMARY KEY (tenant, key)
) WITHOUT ROWID;
CREATE UNIQUE INDEX alarm_occurrences_by_event ON alarm_occurrences (tenant, event_id);
CREATE UNIQUE INDEX alarm_occurrences_by_source ON alarm_occurrences (tenant, source_key) WHERE source_key IS NOT NULL;
