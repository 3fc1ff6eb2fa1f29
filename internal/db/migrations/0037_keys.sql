-- tako: level 1, tx
-- A master key on its way to the running nodes: the new one, sealed by the former.
-- The row is there only until all of them have it.
CREATE TABLE secret_passage (
    from_id TEXT   NOT NULL PRIMARY KEY,
    to_id   TEXT   NOT NULL,
    sealed  BLOB   NOT NULL,
    created BIGINT NOT NULL
);

-- Which keys a running node has in hand; node is its incarnation.
CREATE TABLE secret_holder (
    node      TEXT NOT NULL PRIMARY KEY,
    master_id TEXT NOT NULL,
    key_id    TEXT NOT NULL
);

-- Recovery keys; id is the public half. identity is the private one, sealed, and
-- '' once somebody has shown that they keep it. escrow is the master key with the
-- id master_id, encrypted to id.
CREATE TABLE secret_recovery (
    id        TEXT   NOT NULL PRIMARY KEY,
    created   BIGINT NOT NULL,
    confirmed BIGINT NOT NULL,
    identity  TEXT   NOT NULL,
    master_id TEXT   NOT NULL,
    escrow    BLOB   NOT NULL
);

-- The keys by which backups open that were made under a former master key, sealed.
CREATE TABLE secret_former (
    master_id TEXT   NOT NULL PRIMARY KEY,
    identity  TEXT   NOT NULL,
    created   BIGINT NOT NULL
);
