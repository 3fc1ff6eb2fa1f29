-- tako: level 1, tx
-- Packages that were fetched from external feeds. origin is a hash of where the feed
-- led when it was fetched; the content of a version that is moving may be another
-- one the next time, so that it is not taken from here.

CREATE TABLE feed_cache (
    feed_id    TEXT   NOT NULL,
    origin     TEXT   NOT NULL,
    package_id TEXT   NOT NULL,
    version    TEXT   NOT NULL,
    space_id   TEXT   NOT NULL,
    file_name  TEXT   NOT NULL,
    sha256     TEXT   NOT NULL,
    size       BIGINT NOT NULL,
    moving     BIGINT NOT NULL,
    used       BIGINT NOT NULL,
    PRIMARY KEY (feed_id, origin, package_id, version)
);
CREATE INDEX feed_cache_by_use ON feed_cache (used);
CREATE INDEX feed_cache_by_blob ON feed_cache (sha256);
