-- tako: level 1, tx
-- What retention has to know: which packages are in use, and which blobs are not.

-- The packages that an owner (a release) selects or has once selected: its
-- deployments still want those. '*' is any: of an id or a version that is an
-- expression. An owner has at least one row; that of '' and '' says nothing.
CREATE TABLE package_use (
    owner          TEXT NOT NULL,
    space_id       TEXT NOT NULL,
    package_folded TEXT NOT NULL,
    version_folded TEXT NOT NULL,
    PRIMARY KEY (owner, package_folded, version_folded)
);
CREATE INDEX package_use_by_package ON package_use (space_id, package_folded, version_folded);

-- Blobs that no row names, and since when that is known.
CREATE TABLE blob_orphan (
    sha256 TEXT   NOT NULL PRIMARY KEY,
    since  BIGINT NOT NULL
);

CREATE INDEX artifact_by_blob ON artifact (sha256);
CREATE INDEX task_log_segment_by_blob ON task_log_segment (sha256);
