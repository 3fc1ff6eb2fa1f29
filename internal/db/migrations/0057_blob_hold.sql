-- tako: level 1, tx
-- Running backups. What they have listed must not be swept away before it is copied:
-- while one of them lives, no blob is deleted. beat is the last sign of life, by the
-- database's clock on PostgreSQL; on SQLite a file lock of the same id tells.
CREATE TABLE blob_hold (
    id      TEXT   NOT NULL PRIMARY KEY,
    started BIGINT NOT NULL,
    beat    BIGINT NOT NULL
);
