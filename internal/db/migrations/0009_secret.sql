-- tako: level 1, tx
-- The keys that seal sensitive values. wrapped is the key itself, sealed by the
-- master key whose id is master_id and which is never stored here. New values
-- are sealed by the newest key.
CREATE TABLE secret_key (
    id        TEXT   NOT NULL PRIMARY KEY,
    seq       BIGINT NOT NULL,
    master_id TEXT   NOT NULL,
    wrapped   BLOB   NOT NULL,
    created   BIGINT NOT NULL
);
