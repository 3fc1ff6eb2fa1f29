-- tako: level 2, tx
-- Which versions have served on this database, for whoever wants to know which one a
-- backup needs or since when one is there. A version adds its row when it begins to serve
-- on a node where another one did before. The first row of a database that is older than
-- this table is that of the version which made its schema.
CREATE TABLE installation_history (
    seq     BIGINT NOT NULL PRIMARY KEY,
    version TEXT   NOT NULL,
    level   BIGINT NOT NULL,           -- the schema level of the version
    node    TEXT   NOT NULL,           -- '' where it is not known
    began   BIGINT NOT NULL            -- microseconds since 1970, UTC
);
INSERT INTO installation_history (seq, version, level, node, began)
    SELECT 1, expanded_by, schema_level, '', expanded_at FROM tako_meta WHERE schema_level > 0;
