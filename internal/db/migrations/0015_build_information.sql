-- tako: level 1, tx
-- What build servers tell about a version of a package, of any feed. The body is
-- the document that clients see.

CREATE TABLE build_information (
    id             TEXT   NOT NULL,
    seq            BIGINT NOT NULL,
    space_id       TEXT   NOT NULL,
    package_folded TEXT   NOT NULL,
    version_folded TEXT   NOT NULL,
    version_key    TEXT   NOT NULL,
    created        BIGINT NOT NULL,
    body           TEXT   NOT NULL,
    PRIMARY KEY (space_id, package_folded, version_folded)
);
CREATE UNIQUE INDEX build_information_by_id ON build_information (id);
CREATE INDEX build_information_by_version ON build_information (space_id, package_folded, version_key, seq);
