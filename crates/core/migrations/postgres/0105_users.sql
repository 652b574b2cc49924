-- Local users, and the tenants that each may work in. Passwords are Argon2id in PHC form; `password_number`
-- grows with each, and `changed_by` is the id of the token with which the last one was chosen.
CREATE TABLE users (
    id TEXT PRIMARY KEY,
    username TEXT NOT NULL UNIQUE,
    password TEXT NOT NULL,
    role TEXT NOT NULL,
    scopes TEXT,
    must_change_password BIGINT NOT NULL,
    password_number BIGINT NOT NULL,
    changed_by TEXT
);
CREATE TABLE user_tenants (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    tenant TEXT NOT NULL,
    display_name TEXT NOT NULL,
    PRIMARY KEY (user_id, tenant)
);
