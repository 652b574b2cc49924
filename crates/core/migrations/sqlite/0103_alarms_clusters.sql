-- Clusters of alarm occurrences. severity is a rank, the mildest 0. A merged one stays, and points on.
CREATE TABLE clusters (
    tenant BIGINT NOT NULL,
    id TEXT NOT NULL,
    alarm_count BIGINT NOT NULL,
    root_entity_id TEXT NOT NULL,
    confidence DOUBLE PRECISION NOT NULL,
    severity BIGINT NOT NULL,
    is_emergency BIGINT NOT NULL,
    started_at BIGINT NOT NULL,
    ended_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    merged_into TEXT,
    continues TEXT,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX clusters_by_start ON clusters (tenant, started_at);

-- Occurrences that are in a cluster, and what each joined: its cause, and one of the same type.
CREATE TABLE cluster_members (
    tenant BIGINT NOT NULL,
    event_id TEXT NOT NULL,
    cluster_id TEXT NOT NULL,
    alarm_id TEXT NOT NULL,
    entity_id TEXT NOT NULL,
    alarm_type TEXT NOT NULL,
    severity BIGINT NOT NULL,
    is_emergency BIGINT NOT NULL,
    raised_at BIGINT NOT NULL,
    arrived_at BIGINT NOT NULL,
    cause_id TEXT,
    cause_rule TEXT,
    kin_id TEXT,
    PRIMARY KEY (tenant, event_id)
);
CREATE INDEX cluster_members_by_cluster ON cluster_members (tenant, cluster_id);
CREATE INDEX cluster_members_by_arrival ON cluster_members (tenant, arrived_at);

-- How far the log of each tenant has been correlated.
CREATE TABLE correlated (
    tenant BIGINT PRIMARY KEY,
    seq BIGINT NOT NULL
);
