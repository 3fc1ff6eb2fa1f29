-- tako: level 1, tx
-- A row stands here while another database is copied into this one: until it is gone,
-- this one is not whole, and no server starts on it.
CREATE TABLE copy_mark (
    id      BIGINT NOT NULL PRIMARY KEY,
    source  TEXT   NOT NULL,
    started BIGINT NOT NULL
);
