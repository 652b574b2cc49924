-- One row a tenant. seq of an event and the tenant's number make the event's key: number * 2^40 + seq.
CREATE TABLE tenants (
    number BIGINT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    epoch TEXT NOT NULL,
    head BIGINT NOT NULL,
    -- Cursors below this may have missed events of topics that nothing is known of any more.
    trimmed BIGINT NOT NULL
);

-- The log. INTEGER PRIMARY KEY is SQLite's rowid: the table is stored in key order.
CREATE TABLE events (
    key INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    type TEXT NOT NULL,
    stored_at BIGINT NOT NULL,
    data_at BIGINT NOT NULL,
    json TEXT NOT NULL
);
CREATE INDEX events_by_topic ON events (topic, key);

-- Ids that publishers gave, while their events are kept: a repeat is the same event.
CREATE TABLE event_ids (
    tenant BIGINT NOT NULL,
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    key BIGINT NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (tenant, source, id)
) WITHOUT ROWID;
CREATE INDEX event_ids_by_key ON event_ids (key);

-- What each topic holds, and the last seq that retention has taken from it.
CREATE TABLE topics (
    tenant BIGINT NOT NULL,
    topic TEXT NOT NULL,
    events BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    trimmed BIGINT NOT NULL,
    PRIMARY KEY (tenant, topic)
) WITHOUT ROWID;

-- Answers to requests with an Idempotency-Key.
CREATE TABLE idempotency (
    tenant BIGINT NOT NULL,
    subject TEXT NOT NULL,
    key TEXT NOT NULL,
    request TEXT NOT NULL,
    answer TEXT NOT NULL,
    stored_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, subject, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (stored_at);

-- What could not be taken in, with its reason.
CREATE TABLE dead_letters (
    id TEXT PRIMARY KEY,
    tenant BIGINT NOT NULL,
    source TEXT NOT NULL,
    reason TEXT NOT NULL,
    content TEXT NOT NULL,
    stored_at BIGINT NOT NULL
);
CREATE INDEX dead_letters_by_age ON dead_letters (tenant, stored_at);

-- Single values: the boot that last used this database.
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
