-- tako: level 1, tx
-- The built-in package repository: one row per version, its content is a blob.
-- version_key sorts as versions do; version_folded makes them unique.

CREATE TABLE package (
    id             TEXT   NOT NULL,
    space_id       TEXT   NOT NULL,
    package_id     TEXT   NOT NULL,
    package_folded TEXT   NOT NULL,
    version        TEXT   NOT NULL,
    version_folded TEXT   NOT NULL,
    version_key    TEXT   NOT NULL,
    extension      TEXT   NOT NULL,
    sha256         TEXT   NOT NULL,
    sha1           TEXT   NOT NULL,
    size           BIGINT NOT NULL,
    published      BIGINT NOT NULL,
    published_by   TEXT   NOT NULL,
    PRIMARY KEY (space_id, package_folded, version_folded)
);
CREATE INDEX package_by_version ON package (space_id, package_folded, version_key);
CREATE INDEX package_by_blob ON package (sha256);
