-- Revoked subjects and token ids, until undone. Exactly one of subject and token_id is set.
CREATE TABLE revocations (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    subject TEXT,
    token_id TEXT,
    reason TEXT,
    revoked_by TEXT NOT NULL,
    revoked_at BIGINT NOT NULL
);
CREATE INDEX revocations_by_tenant ON revocations (tenant, revoked_at);
