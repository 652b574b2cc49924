-- What a tenant's network is made of.
CREATE TABLE entities (
    tenant BIGINT NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    entity_type TEXT COLLATE "C",
    name TEXT NOT NULL,
    external_id TEXT COLLATE "C",
    geo_lat DOUBLE PRECISION,
    geo_lon DOUBLE PRECISION,
    revenue_weight DOUBLE PRECISION,
    sla_tier TEXT,
    embedding_provider TEXT,
    embedding_model TEXT,
    last_seen_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX entities_by_age ON entities (tenant, created_at, id);
CREATE INDEX entities_by_type ON entities (tenant, entity_type, created_at, id);
CREATE INDEX entities_by_external_id ON entities (tenant, external_id, created_at, id);

-- What an entity depends on or is part of. A target need not be stored.
CREATE TABLE entity_relations (
    tenant BIGINT NOT NULL,
    entity_id TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    place BIGINT NOT NULL,
    target TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, entity_id, kind, place)
);

-- Grows with each change of a tenant's relations, so that whoever holds them knows whether they are still those.
CREATE TABLE topology_versions (tenant BIGINT PRIMARY KEY, version BIGINT NOT NULL);

-- A metric of an entity. Numbers are never used again: samples of one that is gone may still lie there.
CREATE TABLE kpi_series (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant BIGINT NOT NULL,
    entity_id TEXT COLLATE "C" NOT NULL,
    metric_name TEXT COLLATE "C" NOT NULL,
    UNIQUE (tenant, entity_id, metric_name)
);

-- One value. No source is ''.
CREATE TABLE kpi_samples (
    series BIGINT NOT NULL,
    at BIGINT NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    value DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (series, at, source)
);

-- Series whose entity is gone and whose samples are yet to be removed.
CREATE TABLE kpi_dropped (
    tenant BIGINT NOT NULL,
    series BIGINT NOT NULL,
    PRIMARY KEY (tenant, series)
);

-- Who is asleep now. Figures that are not known are NULL.
CREATE TABLE sleeping_cells (
    tenant BIGINT NOT NULL,
    entity_id TEXT COLLATE "C" NOT NULL,
    metric_name TEXT COLLATE "C" NOT NULL,
    cause TEXT NOT NULL,
    since BIGINT NOT NULL,
    detected_at BIGINT NOT NULL,
    z_score DOUBLE PRECISION,
    baseline_mean DOUBLE PRECISION NOT NULL,
    baseline_deviation DOUBLE PRECISION NOT NULL,
    current_value DOUBLE PRECISION,
    PRIMARY KEY (tenant, entity_id, metric_name)
);
